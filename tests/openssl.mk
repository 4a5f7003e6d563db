# openssl.mk: the OpenSSL that the C tests of the native loop are built with: the one that the loop itself is built with (make setup OPENSSL=…).
# Included by makefiles that know ROOT.
OPENSSL_CHOSEN := $(wildcard $(ROOT)/.venv/openssl)
OPENSSL_PREFIX := $(if $(OPENSSL_CHOSEN),$(shell cat $(OPENSSL_CHOSEN)))
OPENSSL_FLAGS  := $(if $(OPENSSL_PREFIX),-I$(OPENSSL_PREFIX)/include)
OPENSSL_LIBS   := $(if $(OPENSSL_PREFIX),$(wildcard $(foreach lib,lib lib64,$(OPENSSL_PREFIX)/$(lib)/libssl.a $(OPENSSL_PREFIX)/$(lib)/libcrypto.a)),-lssl -lcrypto)
