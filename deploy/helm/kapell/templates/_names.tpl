{{- define "kapell.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* What everything is called. Short enough that a name with a pool and a pod's ending behind it is one. */}}
{{- define "kapell.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "kapell.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "kapell.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "kapell.selector" -}}
app.kubernetes.io/name: {{ include "kapell.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "kapell.labels" -}}
{{ include "kapell.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "kapell.image" -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}

{{- define "kapell.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "kapell.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "kapell.scheme" -}}
{{- if .Values.tls.secretName -}}https{{- else -}}http{{- end -}}
{{- end -}}

{{/* Names of Secrets: one that exists, or the one of the chart. */}}
{{- define "kapell.databaseSecret" -}}
{{- if .Values.database.url -}}{{ include "kapell.fullname" . }}-database{{- else -}}{{ .Values.database.existingSecret }}{{- end -}}
{{- end -}}
{{- define "kapell.keySecret" -}}
{{- if .Values.secretsKey.value -}}{{ include "kapell.fullname" . }}-secrets-key{{- else -}}{{ .Values.secretsKey.existingSecret }}{{- end -}}
{{- end -}}
{{- define "kapell.tokenSecret" -}}
{{- if .Values.token.value -}}{{ include "kapell.fullname" . }}-workers{{- else -}}{{ .Values.token.existingSecret }}{{- end -}}
{{- end -}}

{{/* What could start in the queues of a pool and what its workers run, of all nodes: of `queues` and `pool`. */}}
{{- define "kapell.poolAttempts" -}}
(sum(kapell_queue_startable_attempts{queue=~"{{ join "|" .queues }}"}) or vector(0))
+ (sum(kapell_worker_busy_attempts{pool="{{ .pool }}"}) or vector(0))
{{- end -}}

{{/* Variables of a map, in the order of their names. A number of a file of values has a fraction for Helm. */}}
{{- define "kapell.variables" -}}
{{- range $name, $value := . }}
- name: {{ $name }}
  value: {{ if kindIs "float64" $value }}{{ $value | int64 | quote }}{{ else }}{{ $value | quote }}{{ end }}
{{- end }}
{{- end -}}

{{/* Where a pod of this chart may run and what it may do: of `pod`, with the chart's root. */}}
{{- define "kapell.placement" -}}
serviceAccountName: {{ include "kapell.serviceAccount" .root }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  {{- toYaml .root.Values.podSecurityContext | nindent 2 }}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .pod.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .pod.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .pod.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .pod.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
