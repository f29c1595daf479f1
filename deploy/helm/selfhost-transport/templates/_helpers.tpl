{{- define "sht.name" -}}
{{- if contains "selfhost-transport" .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-selfhost-transport" .Release.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "sht.selector" -}}
app.kubernetes.io/name: selfhost-transport
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "sht.labels" -}}
{{ include "sht.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{- define "sht.secret" -}}
{{ default (include "sht.name" .) .Values.existingSecret }}
{{- end }}

{{- define "sht.image" -}}
{{ .repository }}:{{ .tag }}
{{- end }}

{{- define "sht.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "sht.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .uid }}
runAsGroup: {{ .uid }}
fsGroup: {{ .uid }}
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* Where the configuration and Redis are. */}}
{{- define "sht.environment" -}}
- name: SELFHOST_TRANSPORT_CONFIG
  value: /etc/selfhost-transport/config.toml
{{- if .Values.redis.bundled }}
- name: REDIS_PASSWORD
  valueFrom:
    secretKeyRef: {name: {{ include "sht.secret" . }}, key: redis-password}
- name: SELFHOST_TRANSPORT_REDIS
  value: redis://transport:$(REDIS_PASSWORD)@{{ include "sht.name" . }}-redis:6379/0
{{- else }}
- name: SELFHOST_TRANSPORT_REDIS
  valueFrom:
    secretKeyRef: {name: {{ include "sht.secret" . }}, key: redis-url}
{{- end }}
{{- end }}

{{/* Pods start again when the configuration or the secret of this release changes. */}}
{{- define "sht.checksums" -}}
checksum/config: {{ include (print $.Template.BasePath "/config.yaml") . | sha256sum }}
checksum/secret: {{ include (print $.Template.BasePath "/secret.yaml") . | sha256sum }}
{{- end }}

{{/* All keys: those of the values, and that of Prometheus. */}}
{{- define "sht.keys" -}}
{{- $keys := .Values.keys }}
{{- if .Values.metrics.enabled }}
{{- $secret := required "metrics.key.secret is required with metrics.enabled" .Values.metrics.key.secret }}
{{- $keys = append $keys (dict "name" .Values.metrics.key.name "secret" $secret "capability" (dict "*" (list "stats"))) }}
{{- end }}
{{- toJson $keys }}
{{- end }}
