# Certificates for clusters that share a root, made with openssl.
#
#   make -f Makefile.selfsigned.mk root-ca          the root's key and certificate
#   make -f Makefile.selfsigned.mk NAME-cacerts     an intermediate for cluster NAME, in the folder NAME; NAME alone does, too
#   make -f Makefile.selfsigned.mk clean            removes what was made in between
#
# Everything is made in the current folder. The four files of NAME are the keys of Secret cacerts in istio-system:
#   kubectl create secret generic cacerts -n istio-system --from-file=NAME/ca-cert.pem --from-file=NAME/ca-key.pem \
#       --from-file=NAME/root-cert.pem --from-file=NAME/cert-chain.pem

.SUFFIXES:
.SECONDARY:
.DELETE_ON_ERROR:

OPENSSL ?= openssl

ROOTCA_DAYS ?= 3650
ROOTCA_KEYSZ ?= 4096
ROOTCA_ORG ?= Istio
ROOTCA_CN ?= Root CA
ROOTCA_SERIAL ?= $(shell $(OPENSSL) rand -hex 16)

INTERMEDIATE_DAYS ?= 730
INTERMEDIATE_KEYSZ ?= 4096
INTERMEDIATE_ORG ?= Istio
INTERMEDIATE_CN ?= Intermediate CA
INTERMEDIATE_SAN_DNS ?= istiod.istio-system.svc
INTERMEDIATE_SERIAL ?= $(shell $(OPENSSL) rand -hex 16)

SELF := $(firstword $(MAKEFILE_LIST))

define ROOTCA_CONF
[ req ]
encrypt_key = no
prompt = no
utf8 = yes
default_md = sha256
default_bits = $(ROOTCA_KEYSZ)
req_extensions = ca
x509_extensions = ca
distinguished_name = name
[ ca ]
subjectKeyIdentifier = hash
basicConstraints = critical, CA:true
keyUsage = critical, digitalSignature, nonRepudiation, keyEncipherment, keyCertSign
[ name ]
O = $(ROOTCA_ORG)
CN = $(ROOTCA_CN)
endef
export ROOTCA_CONF

define INTERMEDIATE_CONF
[ req ]
encrypt_key = no
prompt = no
utf8 = yes
default_md = sha256
default_bits = $(INTERMEDIATE_KEYSZ)
req_extensions = ca
x509_extensions = ca
distinguished_name = name
[ ca ]
subjectKeyIdentifier = hash
basicConstraints = critical, CA:true, pathlen:0
keyUsage = critical, digitalSignature, nonRepudiation, keyEncipherment, keyCertSign
subjectAltName = DNS:$(INTERMEDIATE_SAN_DNS)
[ name ]
O = $(INTERMEDIATE_ORG)
CN = $(INTERMEDIATE_CN)
L = $(CLUSTER)
endef
export INTERMEDIATE_CONF

.PHONY: help root-ca clean

help:
	@sed -n 's/^#  *make -f/make -f/p' $(SELF)

root-ca: root-key.pem root-cert.pem

root-key.pem:
	@echo "generating $@"
	@$(OPENSSL) genrsa -out $@ $(ROOTCA_KEYSZ)
	@chmod 600 $@

root-ca.conf:
	@printf '%s\n' "$$ROOTCA_CONF" > $@

root-cert.csr: root-key.pem root-ca.conf
	@echo "generating $@"
	@$(OPENSSL) req -sha256 -new -key $< -config root-ca.conf -out $@

root-cert.pem: root-cert.csr root-key.pem
	@echo "generating $@"
	@$(OPENSSL) x509 -req -sha256 -days $(ROOTCA_DAYS) -set_serial 0x$(ROOTCA_SERIAL) -signkey root-key.pem \
		-extensions ca -extfile root-ca.conf -in $< -out $@

%-cacerts: %/cert-chain.pem
	@echo "Intermediate inputs stored in $*/"
	@rm -f $*/cluster-ca.csr $*/intermediate.conf
	@echo "done"

%/ca-key.pem:
	@echo "generating $@"
	@mkdir -p $(@D)
	@$(OPENSSL) genrsa -out $@ $(INTERMEDIATE_KEYSZ)
	@chmod 600 $@

%/intermediate.conf: CLUSTER = $*
%/intermediate.conf: %/ca-key.pem
	@printf '%s\n' "$$INTERMEDIATE_CONF" > $@

%/cluster-ca.csr: %/ca-key.pem %/intermediate.conf
	@echo "generating $@"
	@$(OPENSSL) req -sha256 -new -key $< -config $(@D)/intermediate.conf -out $@

%/ca-cert.pem: %/cluster-ca.csr root-key.pem root-cert.pem
	@echo "generating $@"
	@$(OPENSSL) x509 -req -sha256 -days $(INTERMEDIATE_DAYS) -set_serial 0x$(INTERMEDIATE_SERIAL) -CA root-cert.pem \
		-CAkey root-key.pem -extensions ca -extfile $(@D)/intermediate.conf -in $< -out $@

%/root-cert.pem: root-cert.pem
	@mkdir -p $(@D)
	@cp $< $@

%/cert-chain.pem: %/ca-cert.pem %/root-cert.pem
	@echo "generating $@"
	@cat $^ > $@

clean:
	@rm -f root-ca.conf root-cert.csr */cluster-ca.csr */intermediate.conf

# A bare NAME means NAME-cacerts; nothing else has this rule.
.DEFAULT:
	@case '$@' in \
	*[!A-Za-z0-9-]*|'') echo "no rule to make $@" >&2; exit 2 ;; \
	*) $(MAKE) --no-print-directory -f $(SELF) $@-cacerts ;; \
	esac
