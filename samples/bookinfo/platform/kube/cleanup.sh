#!/usr/bin/env bash
# Removes Bookinfo and its routing rules from a namespace: $NAMESPACE, else the one that is asked for, else default.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [ -z "${NAMESPACE:-}" ] && [ -t 0 ]; then
  read -r -p "namespace ? [default] " NAMESPACE
fi
namespace=${NAMESPACE:-default}
echo "using namespace $namespace"

for kind in destinationrules virtualservices gateways; do
  names=$(kubectl get -n "$namespace" "$kind.networking.istio.io" -o name --ignore-not-found 2>/dev/null || true)
  for name in $names; do
    case "${name##*/}" in
      productpage|details|reviews|ratings|bookinfo|bookinfo-gateway) kubectl delete -n "$namespace" "$name" ;;
    esac
  done
done

kubectl delete -n "$namespace" --ignore-not-found -f "$here/bookinfo.yaml"
echo "Application cleanup successful"
