{{- define "linewatch.labels" -}}
app.kubernetes.io/name: linewatch
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* The labels by which a component's pods are selected. Argument: (list root component) */}}
{{- define "linewatch.selector" -}}
app.kubernetes.io/name: linewatch
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* A value as text. Helm reads each number of a values file as a float, and writes those from 1e6 on with an exponent. */}}
{{- define "linewatch.text" -}}
{{- if and (kindIs "float64" .) (eq . (floor .)) }}{{ int64 . }}{{ else }}{{ . }}{{ end }}
{{- end }}

{{- define "linewatch.image" -}}
{{- $root := index . 0 -}}
{{- $tag := include "linewatch.text" ($root.Values.image.tag | default $root.Chart.AppVersion) -}}
{{ $root.Values.image.registry }}/{{ index . 1 }}:{{ $tag }}
{{- end }}

{{- define "linewatch.env" -}}
- name: LINEWATCH_DATABASE_URL
  valueFrom: {secretKeyRef: {name: {{ .Values.existingSecret }}, key: DATABASE_URL}}
- name: LINEWATCH_REDIS_URL
  valueFrom: {secretKeyRef: {name: {{ .Values.existingSecret }}, key: REDIS_URL}}
{{- range list "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY" "AWS_SESSION_TOKEN" }}
- name: {{ . }}
  valueFrom: {secretKeyRef: {name: {{ $.Values.existingSecret }}, key: {{ . }}, optional: true}}
{{- end }}
{{- range $name, $value := .Values.aws }}
- name: AWS_{{ $name }}
  value: {{ include "linewatch.text" $value | quote }}
{{- end }}
- name: LINEWATCH_STORE_URL
  value: {{ .Values.store.url | default "file:///var/lib/linewatch/store" | quote }}
- name: LINEWATCH_READY_FILE
  value: /tmp/ready
{{- range $name, $value := .Values.settings }}
- name: LINEWATCH_{{ $name }}
  value: {{ include "linewatch.text" $value | quote }}
{{- end }}
{{- range $name, $value := .Values.openTelemetry }}
- name: OTEL_{{ $name }}
  value: {{ include "linewatch.text" $value | quote }}
{{- end }}
{{- end }}

{{/* Whether a component has the store. Argument: (list root component) */}}
{{- define "linewatch.hasStoreVolume" -}}
{{- if and (ne (index . 1) "migrate") (not (index . 0).Values.store.url) }}true{{ end }}
{{- end }}

{{/* Whether a component reads archives: the api checks them, the io worker lists them, scoring workers read their images.
     Argument: (list root component) */}}
{{- define "linewatch.readsArchives" -}}
{{- if or (has (index . 1) (list "api" "io")) (hasPrefix "scoring-" (index . 1)) }}true{{ end }}
{{- end }}

{{/* What every pod has. Argument: (list root component) */}}
{{- define "linewatch.pod" -}}
{{- $root := index . 0 -}}
serviceAccountName: {{ $root.Release.Name }}
automountServiceAccountToken: false
terminationGracePeriodSeconds: 60 # a worker finishes what it holds
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
volumes:
  - {name: tmp, emptyDir: {}}
  {{- if include "linewatch.hasStoreVolume" . }}
  - name: store
    persistentVolumeClaim:
      claimName: {{ $root.Values.store.volume.existingClaim | default (printf "%s-store" $root.Release.Name) }}
  {{- end }}
  {{- if include "linewatch.readsArchives" . }}
  {{- with $root.Values.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- end }}
{{- end }}

{{/* What every container has. Argument: (list root component) */}}
{{- define "linewatch.container" -}}
{{- $root := index . 0 -}}
imagePullPolicy: {{ $root.Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
  {{- if include "linewatch.hasStoreVolume" . }}
  - {name: store, mountPath: /var/lib/linewatch/store}
  {{- end }}
  {{- if include "linewatch.readsArchives" . }}
  {{- with $root.Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- end }}
{{- end }}

{{/* Two pods of a component are on different nodes where that is possible. */}}
{{- define "linewatch.spread" -}}
- maxSkew: 1
  topologyKey: kubernetes.io/hostname
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels: {{- include "linewatch.selector" . | nindent 6 }}
{{- end }}

{{/* The annotations of every pod. */}}
{{- define "linewatch.podAnnotations" -}}
{{- with .Values.podAnnotations }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Where a worker serves its metrics. */}}
{{- define "linewatch.metricsEnv" -}}
{{- if .Values.metrics.enabled }}
- {name: LINEWATCH_METRICS_HOST, value: "0.0.0.0"}
- {name: LINEWATCH_METRICS_PORT, value: {{ .Values.metrics.port | quote }}}
{{- end }}
{{- end }}

{{/* For pods that may hold a GPU: a new one beside the old would wait for the GPU, and the old one for the new. */}}
{{- define "linewatch.oneByOne" -}}
rollingUpdate: {maxSurge: 0, maxUnavailable: 1}
{{- end }}

{{- define "linewatch.metricsPort" -}}
{{- if .Values.metrics.enabled }}
ports:
  - {name: metrics, containerPort: {{ .Values.metrics.port }}}
{{- end }}
{{- end }}

{{- define "linewatch.readyFile" -}}
exec: {command: [test, -f, /tmp/ready]}
{{- end }}
