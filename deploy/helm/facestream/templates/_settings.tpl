{{- define "facestream.worker" -}}
{{- $own := dict
  "gallery" (printf "%s&password_file=/run/secrets/facestream/postgres-password" .Values.postgresql.gallery)
  "redis" (dict "url" .Values.redis.url "password_file" "/run/secrets/facestream/redis-password")
  "fleet" (dict "enabled" true "name" .Values.fleet)
  "log" (dict "format" "json") }}
{{- toYaml (mergeOverwrite $own (deepCopy .Values.worker.settings)) }}
{{- end }}

{{- define "facestream.console" -}}
{{- $own := dict
  "gallery" (printf "%s&password_file=/run/secrets/facestream/postgres-password" .Values.postgresql.consoleGallery)
  "redis" (dict "url" .Values.redis.consoleUrl "password_file" "/run/secrets/facestream/redis-password")
  "fleet" (dict "name" .Values.fleet)
  "console" (dict "host" "0.0.0.0" "metrics_port" 9464 "allowed_hosts" .Values.console.allowedHosts
    "trusted_proxies" .Values.console.trustedProxies)
  "metrics" (dict "host" "0.0.0.0")
  "log" (dict "format" "json") }}
{{- toYaml (mergeOverwrite $own (deepCopy .Values.console.settings)) }}
{{- end }}
