SwaggerUIBundle({
  url: "openapi.json", dom_id: "#reference", deepLinking: true, validatorUrl: null, layout: "BaseLayout",
  presets: [SwaggerUIBundle.presets.apis],
});
