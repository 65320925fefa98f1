{{- define "cachekit.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "cachekit.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "cachekit.labels" -}}
{{ include "cachekit.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "cachekit.secret" -}}
{{- .Values.credential.existingSecret | default (include "cachekit.name" .) }}
{{- end }}

{{- define "cachekit.team" -}}
- podSelector:
    matchLabels:
      {{- include "cachekit.selector" . | nindent 6 }}
{{- with .Values.networkPolicy.swarmPeers }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "cachekit.health" -}}
httpGet: {path: /healthz, port: metrics}
timeoutSeconds: 6
{{- end }}
