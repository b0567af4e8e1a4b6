{{/* Fails the render if Kubernetes would refuse the pod. Messages name the values to set. */}}
{{- define "kafscale-mcp.checkPod" -}}
{{- include "kafscale-mcp.checkSecurityContexts" . -}}
{{- include "kafscale-mcp.checkResources" . -}}
{{- include "kafscale-mcp.checkScheduling" . -}}
{{- include "kafscale-mcp.checkVolumes" . -}}
{{- end -}}

{{- define "kafscale-mcp.checkSecurityContexts" -}}
{{- $mcp := .Values.mcp -}}
{{- with $mcp.containerSecurityContext -}}
{{- if eq (toString .allowPrivilegeEscalation) "false" -}}
{{- if .privileged -}}
{{- fail (print
  "mcp.containerSecurityContext sets privileged to true and allowPrivilegeEscalation to false, which Kubernetes "
  "refuses: remove privileged, which the service does not need, or set allowPrivilegeEscalation to true") -}}
{{- end -}}
{{- if has "CAP_SYS_ADMIN" (default dict .capabilities).add -}}
{{- fail (print
  "mcp.containerSecurityContext adds the capability CAP_SYS_ADMIN and sets allowPrivilegeEscalation to false, which "
  "Kubernetes refuses: remove the capability, which the service does not need, or set allowPrivilegeEscalation to true")
-}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $names := list -}}
{{- range $mcp.podSecurityContext.sysctls -}}
{{- $name := replace "/" "." .name -}}
{{- if has $name $names -}}
{{- fail (printf "mcp.podSecurityContext.sysctls sets %s twice, which Kubernetes refuses: keep one entry" .name) -}}
{{- end -}}
{{- $names = append $names $name -}}
{{- end -}}
{{- if include "kafscale-mcp.isRestricted" . -}}
{{- with include "kafscale-mcp.notRestricted" . -}}
{{- fail (printf (print
  "%s, but the namespace %s enforces the Pod Security Standard restricted, so Kubernetes would not create the pod: "
  "change the value, or set mcp.namespace.create to false and mcp.namespace.name to a namespace that admits the pod")
  . $mcp.namespace.name) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Not empty if the namespace enforces the Pod Security Standard `restricted`. */}}
{{- define "kafscale-mcp.isRestricted" -}}
{{- $namespace := lookup "v1" "Namespace" "" .Values.mcp.namespace.name | default dict -}}
{{- $labels := default dict (default dict $namespace.metadata).labels -}}
{{- $isOwn := eq (include "kafscale-mcp.namespaceOwner" .) "release" -}}
{{- if or $isOwn (eq (get $labels "pod-security.kubernetes.io/enforce") "restricted") }}true{{ end -}}
{{- end -}}

{{/* Why the pod does not meet the pod security standard `restricted`; empty if it does. */}}
{{- define "kafscale-mcp.notRestricted" -}}
{{- $mcp := .Values.mcp -}}
{{- $pod := $mcp.podSecurityContext -}}
{{- $container := $mcp.containerSecurityContext -}}
{{- $capabilities := default dict $container.capabilities -}}
{{- $seccomp := default dict (default $pod.seccompProfile $container.seccompProfile) -}}
{{- $sources := list
  "name" "configMap" "csi" "downwardAPI" "emptyDir" "ephemeral" "image" "persistentVolumeClaim" "projected" "secret" -}}
{{- $reasons := list -}}
{{- if ne (toString $container.allowPrivilegeEscalation) "false" -}}
{{- $reasons = append $reasons "mcp.containerSecurityContext.allowPrivilegeEscalation is not false" -}}
{{- end -}}
{{- if not (has "ALL" $capabilities.drop) -}}
{{- $reasons = append $reasons "mcp.containerSecurityContext.capabilities.drop does not contain ALL" -}}
{{- end -}}
{{- range without (default list $capabilities.add) "NET_BIND_SERVICE" -}}
{{- $reasons = append $reasons (printf "mcp.containerSecurityContext.capabilities.add contains %s" .) -}}
{{- end -}}
{{- if not (hasKey $container "runAsNonRoot" | ternary $container $pod).runAsNonRoot -}}
{{- $reasons = append $reasons (print
  "runAsNonRoot is not true in mcp.podSecurityContext, or false in mcp.containerSecurityContext") -}}
{{- end -}}
{{- range $where, $context := dict "podSecurityContext" $pod "containerSecurityContext" $container -}}
{{- if and (hasKey $context "runAsUser") (eq (toString $context.runAsUser) "0") -}}
{{- $reasons = append $reasons (printf "mcp.%s.runAsUser is 0" $where) -}}
{{- end -}}
{{- if eq (toString (default dict $context.seccompProfile).type) "Unconfined" -}}
{{- $reasons = append $reasons (printf "mcp.%s.seccompProfile.type is Unconfined" $where) -}}
{{- end -}}
{{- if eq (toString (default dict $context.appArmorProfile).type) "Unconfined" -}}
{{- $reasons = append $reasons (printf "mcp.%s.appArmorProfile.type is Unconfined" $where) -}}
{{- end -}}
{{- end -}}
{{- if not $seccomp.type -}}
{{- $reasons = append $reasons "mcp.podSecurityContext.seccompProfile is not set" -}}
{{- end -}}
{{- range $volume := $mcp.extraVolumes -}}
{{- range without (keys $volume) "name" -}}
{{- if not (has . $sources) -}}
{{- $reasons = append $reasons (printf "the volume %s in mcp.extraVolumes is a %s" $volume.name .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if $reasons }}{{ first $reasons }}{{ end -}}
{{- end -}}

{{- define "kafscale-mcp.checkResources" -}}
{{- $mcp := .Values.mcp -}}
{{- $requests := default dict $mcp.resources.requests -}}
{{- $limits := default dict $mcp.resources.limits -}}
{{- range $name, $request := $requests -}}
{{- $isHuge := hasPrefix "hugepages-" $name -}}
{{- $isExact := or $isHuge (and (contains "/" $name) (not (contains "kubernetes.io/" $name))) -}}
{{- if hasKey $limits $name -}}
{{- $limit := get $limits $name -}}
{{- $requested := include "kafscale-mcp.quantity" $request -}}
{{- $limited := include "kafscale-mcp.quantity" $limit -}}
{{- if and $isExact (ne $requested $limited) -}}
{{- fail (printf (print
  "mcp.resources.requests.%s (%v) and mcp.resources.limits.%s (%v) differ, but this resource cannot be overcommitted: "
  "set both to the same number, or only the limit")
  $name $request $name $limit) -}}
{{- end -}}
{{- if gt (float64 $requested) (float64 $limited) -}}
{{- fail (printf (print
  "mcp.resources.requests.%s (%v) is greater than mcp.resources.limits.%s (%v): "
  "raise the limit or lower the request")
  $name $request $name $limit) -}}
{{- end -}}
{{- else if $isExact -}}
{{- fail (printf (print
  "mcp.resources.requests.%s is set without a limit, but this resource cannot be overcommitted: "
  "set mcp.resources.limits.%s to %v, too")
  $name $name $request) -}}
{{- end -}}
{{- end -}}
{{- $all := merge (dict) $requests $limits -}}
{{- range $name, $amount := $all -}}
{{- if hasPrefix "requests." $name -}}
{{- fail (printf
  "mcp.resources sets %s, which Kubernetes refuses: remove the prefix, which belongs to the quotas of namespaces" $name)
-}}
{{- end -}}
{{- if hasPrefix "hugepages-" $name -}}
{{- if not (or $all.cpu $all.memory) -}}
{{- fail (printf
  "mcp.resources sets %s without cpu or memory, which Kubernetes refuses: set mcp.resources.limits.memory" $name) -}}
{{- end -}}
{{- $size := trimPrefix "hugepages-" $name | include "kafscale-mcp.quantity" | float64 | int64 -}}
{{- if or (eq $size 0) (ne (mod (include "kafscale-mcp.quantity" $amount | float64 | int64) (max 1 $size)) 0) -}}
{{- fail (printf
  "mcp.resources sets %s to %v, which Kubernetes refuses: set a multiple of the page size" $name $amount) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $cpu := toString (default (default 0 $limits.cpu) $requests.cpu) -}}
{{- if and $mcp.autoscaling.enabled (eq (include "kafscale-mcp.quantity" $cpu | float64) 0.0) -}}
{{- fail (print
  "mcp.autoscaling.enabled is true, but mcp.resources.requests.cpu is not set, so there is no request of which the "
  "autoscaler could compare the utilization, and it would never scale: set mcp.resources.requests.cpu, such as 100m")
-}}
{{- end -}}
{{- end -}}

{{- define "kafscale-mcp.checkScheduling" -}}
{{- $mcp := .Values.mcp -}}
{{- $keys := list -}}
{{- range $mcp.topologySpreadConstraints -}}
{{- if has .topologyKey $keys -}}
{{- fail (printf (print
  "mcp.topologySpreadConstraints contains two constraints for %s: keep one of them. Helm updates constraints by their "
  "topologyKey, so an upgrade would lose one of the two, or change the wrong one")
  .topologyKey) -}}
{{- end -}}
{{- $keys = append $keys .topologyKey -}}
{{- $selector := default dict .labelSelector -}}
{{- $selected := default dict $selector.matchLabels | keys -}}
{{- range $selector.matchExpressions }}{{ $selected = append $selected .key }}{{ end -}}
{{- range .matchLabelKeys -}}
{{- if has . $selected -}}
{{- fail (printf (print
  "mcp.topologySpreadConstraints contains %s in matchLabelKeys and in labelSelector, which Kubernetes refuses: "
  "remove it from one of them")
  .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $kind := list "podAffinity" "podAntiAffinity" -}}
{{- $affinity := default dict (get $mcp.affinity $kind) -}}
{{- $terms := default list $affinity.requiredDuringSchedulingIgnoredDuringExecution -}}
{{- range $affinity.preferredDuringSchedulingIgnoredDuringExecution -}}
{{- $terms = append $terms .podAffinityTerm -}}
{{- end -}}
{{- range $term := $terms -}}
{{- range .matchLabelKeys -}}
{{- if has . $term.mismatchLabelKeys -}}
{{- fail (printf (print
  "mcp.affinity.%s contains %s in matchLabelKeys and in mismatchLabelKeys, which Kubernetes refuses: "
  "remove it from one of them")
  $kind .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $mcp.tolerations -}}
{{- $operator := default "Equal" .operator -}}
{{- if and (not .key) (ne $operator "Exists") -}}
{{- fail (print
  "mcp.tolerations contains a toleration without a key, which Kubernetes refuses with the operator Equal, the default: "
  "set the key of the taint, or the operator to Exists, which tolerates every taint") -}}
{{- end -}}
{{- if and .value (eq $operator "Exists") -}}
{{- fail (printf (print
  "mcp.tolerations contains a toleration with the operator Exists and the value %s, which Kubernetes refuses: "
  "remove the value, or set the operator to Equal")
  .value) -}}
{{- end -}}
{{- if and (hasKey . "tolerationSeconds") (ne (toString .effect) "NoExecute") -}}
{{- fail (print
  "mcp.tolerations contains a toleration with tolerationSeconds, which Kubernetes refuses unless its effect is "
  "NoExecute: set the effect to NoExecute, or remove tolerationSeconds") -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Fails the render if volumes or their mounts in the pod collide. */}}
{{- define "kafscale-mcp.checkVolumes" -}}
{{- $mcp := .Values.mcp -}}
{{- $volumes := list -}}
{{- $paths := dict -}}
{{- if include "kafscale-mcp.files" . | fromJsonArray -}}
{{- $volumes = append $volumes "files" -}}
{{- $_ := set $paths "/etc/kafscale-mcp" "the secrets and other files of the service" -}}
{{- end -}}
{{- if include "kafscale-mcp.hasAuditFile" . -}}
{{- $volumes = append $volumes "audit" -}}
{{- $path := clean $mcp.audit.mountPath -}}
{{- if hasKey $paths $path -}}
{{- fail (printf "mcp.audit.mountPath is %s, where %s are mounted: set another path" $path (get $paths $path)) -}}
{{- end -}}
{{- include "kafscale-mcp.checkMount" (dict "value" "mcp.audit.mountPath" "path" $path "volumes" $volumes) -}}
{{- $_ := set $paths $path "mcp.audit.mountPath" -}}
{{- end -}}
{{- if $mcp.audit.headFile.enabled -}}
{{- $volumes = append $volumes "audit-head" -}}
{{- $path := clean $mcp.audit.headFile.mountPath -}}
{{- if hasKey $paths $path -}}
{{- fail (printf
  "mcp.audit.headFile.mountPath is %s, where %s are mounted: set another path"
  $path (get $paths $path)) -}}
{{- end -}}
{{- include "kafscale-mcp.checkMount" (dict
  "value" "mcp.audit.headFile.mountPath" "path" $path "volumes" $volumes) -}}
{{- $_ := set $paths $path "mcp.audit.headFile.mountPath" -}}
{{- end -}}
{{- range $mcp.extraVolumes -}}
{{- if has .name (list "files" "service-files" "audit" "audit-head") -}}
{{- fail (printf
  "mcp.extraVolumes contains a volume named %s, which is a name of the chart's own volumes: rename it" .name) -}}
{{- end -}}
{{- if has .name $volumes -}}
{{- fail (printf "mcp.extraVolumes contains two volumes named %s: rename one of them" .name) -}}
{{- end -}}
{{- $volumes = append $volumes .name -}}
{{- $projected := list -}}
{{- range (default dict .projected).sources -}}
{{- $files := list -}}
{{- range list .configMap .secret .downwardAPI -}}
{{- $files = concat $files (default list (default dict .).items) -}}
{{- end -}}
{{- range compact (list .serviceAccountToken .clusterTrustBundle) }}{{ $files = append $files . }}{{ end -}}
{{- range $files }}{{ $projected = append $projected .path }}{{ end -}}
{{- end -}}
{{- $name := .name -}}
{{- range $projected | uniq -}}
{{- if gt (len $projected) (len (without $projected .) | add1) -}}
{{- fail (printf
  "the projected volume %s in mcp.extraVolumes contains two files at %s, which Kubernetes refuses: change one path"
  $name .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $mcp.extraVolumeMounts -}}
{{- $path := clean .mountPath -}}
{{- if not (has .name $volumes) -}}
{{- fail (printf (print
  "mcp.extraVolumeMounts mounts the volume %s, which does not exist: "
  "add it to mcp.extraVolumes, or correct the name")
  .name) -}}
{{- end -}}
{{- if hasKey $paths $path -}}
{{- fail (printf
  "mcp.extraVolumeMounts mounts %s at %s, which is the path of %s: set another mountPath"
  .name .mountPath (get $paths $path)) -}}
{{- end -}}
{{- $value := printf "the mountPath of %s in mcp.extraVolumeMounts" .name -}}
{{- include "kafscale-mcp.checkMount" (dict "value" $value "path" $path "volumes" $volumes) -}}
{{- $_ := set $paths $path (printf "the volume %s" .name) -}}
{{- $propagation := default "None" .mountPropagation -}}
{{- if and (eq $propagation "Bidirectional") (not $mcp.containerSecurityContext.privileged) -}}
{{- fail (printf (print
  "mcp.extraVolumeMounts mounts %s with the mountPropagation Bidirectional, which Kubernetes refuses for containers "
  "without privileges: set HostToContainer or None")
  .name) -}}
{{- end -}}
{{- if ne (default "Disabled" .recursiveReadOnly) "Disabled" -}}
{{- if or (not .readOnly) (ne $propagation "None") -}}
{{- fail (printf (print
  "mcp.extraVolumeMounts mounts %s with recursiveReadOnly, which Kubernetes refuses unless the mount is read-only and "
  "without propagation: set readOnly to true and remove mountPropagation, or remove recursiveReadOnly")
  .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/*
Fails the render if nothing can be mounted at a path. Parameters: `value`, which sets it; `path`; `volumes`, the names
of the pod's volumes.
*/}}
{{- define "kafscale-mcp.checkMount" -}}
{{- if eq .path "/" -}}
{{- fail (printf "%s is /, which would hide the image of the service: set a folder of its own" .value) -}}
{{- end -}}
{{- if and (has "files" .volumes) (hasPrefix "/etc/kafscale-mcp/" .path) -}}
{{- fail (printf
  "%s is %s, below the read-only volume at /etc/kafscale-mcp: set a path outside of it" .value .path) -}}
{{- end -}}
{{- end -}}
