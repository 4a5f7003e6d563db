# core.mk: the C core with sanitizers, compiled once for all C tests: those of the core, of the native loop, the replays of the fuzz targets.
# Included by makefiles that know ROOT; $(call core,SANITIZERS,FILES) names the objects of these files, and they are up to date when they are
# needed. The folders are made side by side by the tests, so whoever comes second waits for the lock of the first.
#
# -Og: it compiles in less than half the time of -O1, and leaves as much for the sanitizers to look at.
comma := ,
COMPILED := $(ROOT)/build/sanitized
core = $(addprefix $(COMPILED)/$(subst $(comma),-,$1)/,$(2:.c=.o))

ifndef OBJECTS
# In the makefiles of the folders: by a make of its own.
$(COMPILED)/%.o: core-objects ; @:

core-objects:
	@mkdir -p $(COMPILED) && flock $(COMPILED)/.lock $(MAKE) --no-print-directory -s -f $(ROOT)/tests/core.mk ROOT=$(ROOT) OBJECTS='$(CORE_OBJECTS)'

.PHONY: core-objects
else
all: $(OBJECTS)

define rule
$(COMPILED)/$(subst $(comma),-,$1)/%.o: $$(ROOT)/broker/core/%.c $$(ROOT)/tests/core.mk
	@mkdir -p $$(@D)
	@gcc -std=c11 -Og -g1 -Wall -Wextra -Wshadow -Wconversion -Werror -fsanitize=$1 -fno-sanitize-recover=all -fno-omit-frame-pointer \
		-pthread -I$$(ROOT)/broker/core -MMD -MP -c -o $$@ $$<
endef
$(eval $(call rule,address$(comma)undefined))
$(eval $(call rule,thread))

.PHONY: all
-include $(wildcard $(OBJECTS:.o=.d))
endif
