# Targets that go beyond PGXS. Included by the Makefile when one of them is asked for.
#
#   make check         everything below, after installing what is missing, building and installing
#   make check-PART    one part against what is installed: unit, sim, model, layers, format, regress,
#                      isolation, tap
#   make soak          100,000 seeds of the simulation, the model with wider bounds; random statements on a
#                      cluster and a plain database, 5,000 for each seed of SOAK_SEEDS; a minute of transfers
#                      under faults for each seed of SOAK_BANKS; the memory of loads of SOAK_ROWS rows; a minute of a
#                      hot key that moves every second, and of racing first writes; 100 kills of replication;
#                      10,000 reads of one's own writes
#   make demo          three regions on this machine, one is killed
#   make memcheck      two regions under valgrind; needs the Debian package valgrind
#   make bench         the figures of README, side by side
#   make deps          install the Debian packages that are missing
#   make format        format the C++ files; make lint runs clang-tidy
#
# PG_CONFIG chooses another PostgreSQL 15 installation.
PG_CONFIG ?= $(firstword $(wildcard /usr/lib/postgresql/15/bin/pg_config) /usr/lib/postgresql/15/bin/pg_config)
export PG_CONFIG
TOOLS = test/tools

.PHONY: all install uninstall installcheck clean deps check layers format check-format lint demo memcheck bench soak

all install uninstall installcheck clean:
	$(MAKE) $@

deps:
	$(TOOLS)/install_deps.sh

check: deps
	$(TOOLS)/build_and_install.sh
	$(TOOLS)/check.sh

check-%:
	$(TOOLS)/check.sh $*

SOAK_SEEDS ?= 1 2 3 4 5 6 7 8 9 10
SOAK_STATEMENTS ?= 5000
SOAK_BANKS ?= 1 2 3 4 5
SOAK_ROWS ?= 10000000
SIM_SOAK_SEEDS ?= 100000
soak: deps
	SIM_SEEDS=$(SIM_SOAK_SEEDS) MODEL=long $(TOOLS)/check.sh sim model
	$(TOOLS)/build_and_install.sh
	for seed in $(SOAK_SEEDS); do DIFFERENTIAL_SEED=$$seed DIFFERENTIAL_STATEMENTS=$(SOAK_STATEMENTS) \
		TAP_TESTS=test/tap/005_differential.pl $(TOOLS)/check.sh tap || exit; done
	for seed in $(SOAK_BANKS); do BANK_SEED=$$seed BANK_SECONDS=60 \
		TAP_TESTS=test/tap/012_bank.pl $(TOOLS)/check.sh tap || exit; done
	MEMORY_ROWS=$(SOAK_ROWS) MEMORY_HUGE=1 TAP_TESTS=test/tap/022_memory.pl $(TOOLS)/check.sh tap
	HOT_SECONDS=60 TAP_TESTS=test/tap/010_hand_over.pl $(TOOLS)/check.sh tap
	FIRST_WRITE_SECONDS=60 FIRST_WRITE_KEYS=10000 TAP_TESTS=test/tap/021_first_write.pl $(TOOLS)/check.sh tap
	FAULT_KILLS=100 TAP_TESTS=test/tap/023_faults.pl $(TOOLS)/check.sh tap
	READS_ROUNDS=10000 TAP_TESTS=test/tap/014_session_reads.pl $(TOOLS)/check.sh tap

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

memcheck: deps
	$(TOOLS)/build_and_install.sh
	$(TOOLS)/with_servers.sh test/tools/memcheck.sh

bench: deps
	$(TOOLS)/build_and_install.sh
	$(TOOLS)/with_servers.sh test/bench/bench.sh
