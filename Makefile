# pg_homing: PGXS build (make, make install, make installcheck), as for any extension.
# What needs more than that (make check, make demo, make bench …) is in test/tools/project.mk.
all:

ifneq ($(filter check deps check-% layers format check-format lint demo memcheck bench soak,$(MAKECMDGOALS)),)
include test/tools/project.mk
else

MODULE_big = pg_homing
EXTENSION = src/extension/pg_homing
DATA_built = src/extension/pg_homing--1.0.sql

SOURCES := $(wildcard src/*.cpp src/core/*.cpp src/remote/*.cpp src/pg/*.cpp src/write/*.cpp \
	src/rehome/*.cpp src/replicate/*.cpp)
OBJS = $(SOURCES:.cpp=.o)
SQL_PARTS = $(addprefix src/extension/parts/,catalog.sql peer.sql write.sql sequences.sql txn.sql cluster.sql homes.sql register.sql ownership.sql utility.sql orphans.sql relay.sql lease.sql vote.sql map.sql lost.sql survivors.sql declare.sql declarer.sql welcome.sql snapshot.sql join.sql witness.sql rejoin.sql kept_copy.sql missing.sql verify.sql repair.sql views.sql privileges.sql)

# A write at home meets some forty small functions: optimized as one program they are fewer and lie side by side.
WHOLE = -flto=auto -fno-plt
PG_CXXFLAGS = -std=c++17 -Wall -Wextra -Wno-register -Wno-unused-parameter -Wno-missing-field-initializers -MMD -MP $(WHOLE)
PG_CPPFLAGS = -Isrc -I$(libpq_srcdir)
SHLIB_LINK = $(libpq) -lstdc++ -Wl,--version-script=src/exports.map -O2 $(WHOLE)

EXTRA_CLEAN = $(SOURCES:.cpp=.d) src/extension/pg_homing--1.0.sql build

REGRESS = $(patsubst sql/%.sql,%,$(sort $(wildcard sql/*.sql)))
ISOLATION = $(patsubst test/isolation/specs/%.spec,%,$(sort $(wildcard test/isolation/specs/*.spec)))
ISOLATION_OPTS = --inputdir=test/isolation --load-extension=pg_homing

# Bitcode is built without PG_CXXFLAGS.
override with_llvm = no
PG_CONFIG ?= $(firstword $(wildcard /usr/lib/postgresql/15/bin/pg_config) pg_config)
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

src/extension/pg_homing--1.0.sql: $(SQL_PARTS)
	cat $^ > $@

-include $(SOURCES:.cpp=.d)

endif
