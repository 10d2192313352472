#!/usr/bin/env bash
# Prints the IstioOperator of an east-west gateway, through which other networks reach this one's services:
#   gen-eastwest-gateway.sh --mesh mesh1 --cluster cluster1 --network network1 [--revision REV] | istioctl install -y -f -
set -euo pipefail

usage() {
  echo "usage: $0 --network NETWORK --cluster CLUSTER --mesh MESH [--revision REVISION]" >&2
  echo "       $0 --single-cluster [--revision REVISION]" >&2
  exit 1
}

single=false mesh="" cluster="" network="" revision=""
while [ $# -gt 0 ]; do
  case "$1" in
    --single-cluster) single=true; shift; continue ;;
    --mesh|--cluster|--network|--revision) [ $# -ge 2 ] || usage ;;
    *) echo "$0: unknown argument $1" >&2; usage ;;
  esac
  case "$1" in
    --mesh) mesh=$2 ;;
    --cluster) cluster=$2 ;;
    --network) network=$2 ;;
    --revision) revision=$2 ;;
  esac
  shift 2
done
if [ "$single" = false ]; then
  for needed in mesh cluster network; do
    [ -n "${!needed}" ] || { echo "$0: --$needed is missing" >&2; usage; }
  done
fi

cat <<END
apiVersion: install.istio.io/v1alpha1
kind: IstioOperator
metadata:
  name: eastwest
spec:
END
if [ -n "$revision" ]; then
  echo "  revision: \"$revision\""
fi
cat <<END
  profile: empty
  components:
    ingressGateways:
    - name: istio-eastwestgateway
      enabled: true
      label:
        istio: eastwestgateway
        app: istio-eastwestgateway
END
if [ "$single" = false ]; then
  cat <<END
        topology.istio.io/network: "$network"
END
fi
echo "      k8s:"
if [ "$single" = false ]; then
  cat <<END
        env:
        # Only endpoints of this network are behind the gateway.
        - name: ISTIO_META_REQUESTED_NETWORK_VIEW
          value: "$network"
END
fi
cat <<END
        service:
          ports:
          - name: status-port
            port: 15021
            targetPort: 15021
          - name: tls
            port: 15443
            targetPort: 15443
          - name: tls-istiod
            port: 15012
            targetPort: 15012
          - name: tls-webhook
            port: 15017
            targetPort: 15017
  values:
    gateways:
      istio-ingressgateway:
        injectionTemplate: gateway
END
if [ "$single" = false ]; then
  cat <<END
    global:
      meshID: "$mesh"
      network: "$network"
      multiCluster:
        clusterName: "$cluster"
END
fi
