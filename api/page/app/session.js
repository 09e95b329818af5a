/** Who is signed in, and what the API key may do. What it may not do is not shown. */

import { createContext } from "../vendor/preact.mjs";
import { useContext, useEffect, useState } from "../vendor/hooks.mjs";
import { SIGNED_OUT, call, setCsrfToken } from "./api.js";

export const SessionContext = createContext(null);

/** The session: `{actor, name, scopes, auth, needed}`; `needed` if a person has to sign in first. */
export const useSession = () => useContext(SessionContext);

/** Whether the person may do something: `read`, `submit` or `admin`. */
export function useMay(scope) {
  const session = useSession();
  return session.auth === "off" || session.scopes.includes(scope) || session.scopes.includes("admin");
}

async function readSession() {
  const session = await call("/v1/session");
  setCsrfToken(session.csrf_token);
  return { ...session, needed: session.auth === "on" && session.actor === null };
}

/** Read the session, and again after signing in, signing out, or a request that was refused for want of a key. */
export function useSessionState() {
  const [session, setSession] = useState(null);
  const [problem, setProblem] = useState(null);
  const reload = () => readSession().then((read) => { setSession(read); setProblem(null); }, setProblem);
  useEffect(() => {
    reload();
    addEventListener(SIGNED_OUT, reload);
    return () => removeEventListener(SIGNED_OUT, reload);
  }, []);
  return { session, problem, reload };
}

export const signIn = (apiKey) => call("/v1/session", { method: "POST", json: { api_key: apiKey } });
export const signOut = () => call("/v1/session", { method: "DELETE" });
