# Targets that go beyond PGXS. Included by the Makefile when one of them is asked for.
#
#   make check         everything below, after installing what is missing, building and installing
#   make check-PART    one part against what is installed: unit, layers, format, regress, isolation, tap
#   make demo          three regions on this machine, one is killed
#   make bench         the figures of README, side by side
#   make deps          install the Debian packages that are missing
#   make format        format the C++ files; make lint runs clang-tidy
#
# PG_CONFIG chooses another PostgreSQL 15 installation.
PG_CONFIG ?= $(firstword $(wildcard /usr/lib/postgresql/15/bin/pg_config) /usr/lib/postgresql/15/bin/pg_config)
export PG_CONFIG
TOOLS = test/tools

.PHONY: all install uninstall installcheck clean deps check layers format check-format lint demo bench

all install uninstall installcheck clean:
	$(MAKE) $@

deps:
	$(TOOLS)/install_deps.sh

check: deps
	$(TOOLS)/build_and_install.sh
	$(TOOLS)/check.sh

check-%:
	$(TOOLS)/check.sh $*

layers: check-layers
check-format:
	$(TOOLS)/check.sh format

format:
	$(TOOLS)/format.sh --fix

lint:
	$(TOOLS)/lint.sh

demo: deps
	$(TOOLS)/build_and_install.sh
	$(TOOLS)/with_servers.sh test/demo/demo.sh

bench: deps
	$(TOOLS)/build_and_install.sh
	$(TOOLS)/with_servers.sh test/bench/bench.sh
