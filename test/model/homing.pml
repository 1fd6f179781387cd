/*
 * The ownership protocol, hand-over, takeover and leases (DESIGN §8), for Spin. check.sh runs it.
 *
 * Home h belongs to region h at first. In a run there are at most WRITES writes, RELEASES releases and FAULTS
 * regions that are cut off or die; every order of all steps within these bounds is gone through. What must hold:
 *
 *   P1  at most one region can serve a home, in every state;
 *   P7  a region applies a write to the value that it replaced where it was made;
 *   P8  a write is made on the last value that survives; when nothing is left to do, copies are equal, and after
 *       at most one fault every home is served.
 *
 * Copies of lost regions do not count: they are made anew.
 *
 * Each action below, and what does it on servers (schema homing: src/extension/parts) or decides it in core; check.sh
 * looks whether they are there:
 *
 *   Write       core::RouteStatement, write/routing
 *   Release     homing._release_homes
 *   Accept      homing._accept_homes with homing._depend_on
 *   Apply       PostgreSQL's apply worker and the trigger homing._barrier; core::Covers
 *   Lapse       core::LeaseHolder::MayServe, pg::MayServe
 *   Vote        homing._accept, core::PromisedUntil; a majority: homing._propose, core::Proposer
 *   Hear        homing._fence, from homing._adopt_map
 *   Return      the same when a cut is over; homing._renew_lease, core::LeaseHolder::Renew
 *   Fence       homing._stop_applying, homing._stopped_at; core::LeaseHolder::ChangeVoters
 *   Finalize    homing._level_survivors, core::FinalPosition
 *   PassOn      homing._open_relay, homing._read_relay, homing._close_relay; core::RelaysNeeded
 *   TakeOver    homing._adopt_map; core::HasAllTails
 *   Depend      homing._depend_on; core::Covers
 *
 * IsCutOff and Dies are the faults: nothing reaches the region, or it never runs again.
 *
 * A lease is a set of promises, one of each voter. There is no time: while a region is cut off, or somebody has
 * voted against it, a promise can run out at any moment. The holder stops counting it first (Lapse), then the voter
 * may vote: that is what the drift bound and the margin of core/lease are for.
 *
 * Simpler than on servers: a majority of votes decides at once (the rounds of the register are in test/sim), no
 * witnesses, no restarts, all links of a region are cut at once, a returned region does not join again, one
 * write is one transaction. Wider than on servers: survivors come to the final position after it is decided, in any
 * order, where homing.declare_lost lets them do so before; and whoever has the end of a lost stream can pass it on,
 * where on servers it must have come from the lost region itself. Servers so need no row for what a takeover
 * depends on; core and test/sim have it.
 *
 * Every step makes something grow, so no run is endless. Initially all is 0.
 */

#ifndef REGIONS
#define REGIONS  3
#endif
#ifndef HOMES
#define HOMES    2
#endif
#ifndef WRITES
#define WRITES   2
#endif
#ifndef RELEASES
#define RELEASES 2
#endif
#ifndef FAULTS
#define FAULTS   1
#endif
#ifndef MAY_FAIL
#define MAY_FAIL 31 /* set: which regions */
#endif
#ifndef ENTRIES
#define ENTRIES  (WRITES + RELEASES + FAULTS)  /* of one region's stream; asserted to be enough */
#endif

#if WRITES + RELEASES + FAULTS > 7
#error "positions have three bits"
#endif

/* Errors that can be planted, each by -D: where a name stands, a rule does not hold. */
#ifndef serve_before_acceptance
#define serve_before_acceptance 0
#endif
#ifndef no_barrier
#define no_barrier 0
#endif
#ifndef vote_early  /* a voter votes while its promise still counts */
#define vote_early 0
#endif
#ifndef no_lease  /* a region serves whatever its lease says */
#define no_lease 0
#endif
#ifndef no_fence  /* survivors go on applying from a lost region */
#define no_fence 0
#endif
#ifndef no_relay
#define no_relay 0
#endif
#ifndef own_position  /* the final position is that of the heir */
#define own_position 0
#endif
#ifndef skip_survivors  /* the final position is fixed without some survivors */
#define skip_survivors 0
#endif
#ifndef skip_after_lease  /* the same for those only that hold no lease */
#define skip_after_lease 0
#endif
#ifndef one_tail  /* an heir waits for the end of that one lost region only */
#define one_tail 0
#endif
#ifndef depend_on_taken_only  /* what it depends on leaves out lost regions that it had not taken over before */
#define depend_on_taken_only 0
#endif
#ifndef no_recount  /* promises of regions that are about to be lost still count */
#define no_recount 0
#endif

/* --- every region, every home: without these, guards could not quantify ------------------------------------- */

#if REGIONS == 3
#define EACH(op, p, x)      (p(x,0) op p(x,1) op p(x,2))
#define VOTERS(p, x)        (p(x,0) + p(x,1) + p(x,2))
#define EACH2(op, p, x, y)  (p(x,y,0) op p(x,y,1) op p(x,y,2))
#define REGION_OPTIONS(A)   OPTION(A(0)) OPTION(A(1)) OPTION(A(2))
#elif REGIONS == 4
#define EACH(op, p, x)      (p(x,0) op p(x,1) op p(x,2) op p(x,3))
#define VOTERS(p, x)        (p(x,0) + p(x,1) + p(x,2) + p(x,3))
#define EACH2(op, p, x, y)  (p(x,y,0) op p(x,y,1) op p(x,y,2) op p(x,y,3))
#define REGION_OPTIONS(A)   OPTION(A(0)) OPTION(A(1)) OPTION(A(2)) OPTION(A(3))
#else
#define EACH(op, p, x)      (p(x,0) op p(x,1) op p(x,2) op p(x,3) op p(x,4))
#define VOTERS(p, x)        (p(x,0) + p(x,1) + p(x,2) + p(x,3) + p(x,4))
#define EACH2(op, p, x, y)  (p(x,y,0) op p(x,y,1) op p(x,y,2) op p(x,y,3) op p(x,y,4))
#define REGION_OPTIONS(A)   OPTION(A(0)) OPTION(A(1)) OPTION(A(2)) OPTION(A(3)) OPTION(A(4))
#endif

#if HOMES == 1
#define SOME_HOME(p, x)     (p(x,0))
#define HOME_OPTIONS(A)     OPTION(A(0))
#define MOVE_OPTIONS(A)     MOVES_OF(A, 0)
#else
#define SOME_HOME(p, x)     (p(x,0) || p(x,1))
#define HOME_OPTIONS(A)     OPTION(A(0)) OPTION(A(1))
#define MOVE_OPTIONS(A)     MOVES_OF(A, 0) MOVES_OF(A, 1)
#endif
#if REGIONS == 3
#define MOVES_OF(A, h)      OPTION(A(h,0)) OPTION(A(h,1)) OPTION(A(h,2))
#elif REGIONS == 4
#define MOVES_OF(A, h)      OPTION(A(h,0)) OPTION(A(h,1)) OPTION(A(h,2)) OPTION(A(h,3))
#else
#define MOVES_OF(A, h)      OPTION(A(h,0)) OPTION(A(h,1)) OPTION(A(h,2)) OPTION(A(h,3)) OPTION(A(h,4))
#endif
#define OPTION(step)        :: d_step { step; i = 0; o = 0; x = 0; need = 0; reach = 0; last = 0 }

/* --- the state ----------------------------------------------------------------------------------------------- */

#define WRITE     1
#define RELEASE   2
#define ACCEPT    3
#define TAKEOVER  4
#define DEPEND    5

typedef Entry {               /* 4 bytes */
	unsigned kind : 3;
	unsigned home : 1;
	unsigned number : 3;      /* write: of the home's; release, accept: version of the home's ownership */
	unsigned other : 3;       /* write: the one that it replaced; release: the new owner */
	unsigned needs : 15       /* accept, takeover, depend: how far of each stream must be applied before, 3 bits each */
};

#define UP        0
#define CUT_OFF   1
#define DEAD      2

typedef Region {
	Entry stream[ENTRIES];
	byte length;              /* of its stream */
	byte applied[REGIONS];    /* how far of whose stream */
	byte value[HOMES];        /* its copy: the last write */

	/* the newest release that it knows; version 0: the home never changed hands */
	byte version[HOMES], to[HOMES];
	byte covered;             /* set: homes whose newest release is its own, or one that its stream depends on */
	byte accepted[HOMES];     /* the newest version that it accepted */

	byte health;
	byte lapsed;              /* set: voters whose promises it counts no more */
	byte fenced;              /* set: lost regions that it takes nothing from any more */
	byte former;              /* set: regions that it knows to be no voters any more */
	bool out                  /* knows that it was lost, or has more than counts: must copy all anew */
};
Region region[REGIONS];

/* What a majority has decided, and of what it is made. */
typedef Loss {
	byte votes;               /* set: who voted for it */
	bool lost;
	bool final;               /* the final position is known */
	byte position;
	byte taken_by             /* 1 + who took over; 0: nobody */
};
Loss loss[REGIONS];

byte written[HOMES];          /* how often */
byte writes, releases, faults;

#define BIT(r)              (1 << (r))
#define IN(set, r)          ((set) & BIT(r))

/* --- leases and votes ---------------------------------------------------------------------------------------- */

/* Promises of regions that are about to be lost do not count, and until they are, still enlarge the majority. */
#define PROMISED(r, v)      (!IN(region[r].lapsed, v) && (no_recount || !IN(region[r].fenced, v)))
#define A_VOTER_FOR(r, v)   (!IN(region[r].former, v))
#define HAS_LEASE(r)        (no_lease || 2 * VOTERS(PROMISED, r) > VOTERS(A_VOTER_FOR, r))

#define VOTED(x, v)         (IN(loss[x].votes, v) && !loss[v].final)
#define A_VOTER(x, v)       (!loss[v].final)
#define HAS_MAJORITY(x)     (2 * VOTERS(VOTED, x) > VOTERS(A_VOTER, x))

/* --- who owns, who serves ------------------------------------------------------------------------------------ */

#define OWNER(r, h)         (region[r].version[h] -> region[r].to[h] : (h) % REGIONS)
#define HAS_ACCEPTED(r, h)  (serve_before_acceptance || region[r].accepted[h] == region[r].version[h])

/* A function of the register alone: the first that is not lost; REGIONS: none. */
#if REGIONS == 3
#define HEIR(x)  ((x) != 0 && !loss[0].lost -> 0 : ((x) != 1 && !loss[1].lost -> 1 : ((x) != 2 && !loss[2].lost -> 2 : 3)))
#elif REGIONS == 4
#define HEIR(x)  ((x) != 0 && !loss[0].lost -> 0 : ((x) != 1 && !loss[1].lost -> 1 : ((x) != 2 && !loss[2].lost -> 2 : \
	((x) != 3 && !loss[3].lost -> 3 : 4))))
#else
#define HEIR(x)  ((x) != 0 && !loss[0].lost -> 0 : ((x) != 1 && !loss[1].lost -> 1 : ((x) != 2 && !loss[2].lost -> 2 : \
	((x) != 3 && !loss[3].lost -> 3 : ((x) != 4 && !loss[4].lost -> 4 : 5)))))
#endif

#define HAS_TAIL(r, x)      (loss[x].final && IN(region[r].fenced, x) && region[r].applied[x] >= loss[x].position)
#define TAIL_OR_ALIVE(r, x) (!loss[x].lost || HAS_TAIL(r, x))

#define INHERITS_FROM(r, x) ((x) != (r) && loss[x].lost && loss[x].taken_by == (r) + 1 && HAS_TAIL(r, x))
#define INHERITS(r, h)      INHERITS_FROM(r, OWNER(r, h))

#define HAS_DEPENDED(r, h)  (region[r].version[h] == 0 || IN(region[r].covered, h))

#define MAY_ACT(r)          (region[r].health != DEAD && !region[r].out && HAS_LEASE(r))
#define SERVES(r, h)        (MAY_ACT(r) && ((OWNER(r, h) == (r) && HAS_ACCEPTED(r, h)) || \
	(INHERITS(r, h) && HAS_DEPENDED(r, h))))

/* --- streams ------------------------------------------------------------------------------------------------- */

#define NAME(r)  ('A' + (r))
#define MUST(condition, what) \
	if \
	:: condition \
	:: else -> printf(what); assert(false) \
	fi

/* Of one step only: 0 between steps. */
byte i, o, x, need, reach, last, first;

#define NEED(entry, k)      ((entry.needs >> (3 * (k))) & 7)
#define NEXT(r, o)          region[o].stream[region[r].applied[o]]
#define MET(r, o, k)        (k == (r) || region[r].applied[k] >= NEED(NEXT(r, o), k))
#define BARRIER_HOLDS(r, o) (no_barrier || EACH2(&&, MET, r, o))

/* What a region writes that follows from what it has applied: all of it must be applied before. */
inline AddNeeds()
{
	for (o : 0 .. REGIONS - 1) {
		need = 0;
		if
		:: o != r ->
			if
			:: loss[o].lost && loss[o].final && (loss[o].taken_by == r + 1 || !depend_on_taken_only) ->
				need = loss[o].position
			:: else
			fi;
			for (i : 1 .. region[r].applied[o]) {
				if
				:: region[o].stream[i - 1].kind == RELEASE && i > need &&
				   (region[o].stream[i - 1].other == r || loss[region[o].stream[i - 1].other].lost) -> need = i
				:: else
				fi
			}
		:: else
		fi;
		region[r].stream[region[r].length].needs = region[r].stream[region[r].length].needs | (need << (3 * o));
		for (i : 1 .. need) {
			if
			:: region[o].stream[i - 1].kind == RELEASE &&
			   region[o].stream[i - 1].number == region[r].version[region[o].stream[i - 1].home] ->
				region[r].covered = region[r].covered | BIT(region[o].stream[i - 1].home)
			:: else
			fi
		}
	}
}

inline Append(what, h, n, with)
{
	MUST(region[r].length < ENTRIES, "VIOLATION of the bounds: ENTRIES is too small\n");
	region[r].stream[region[r].length].kind = what;
	region[r].stream[region[r].length].home = h;
	region[r].stream[region[r].length].number = n;
	region[r].stream[region[r].length].other = with;
	if
	:: what >= ACCEPT -> AddNeeds()
	:: else
	fi;
	region[r].length++
}

inline LearnRelease(which, release_no, whom, origin)
{
	if
	:: release_no > region[r].version[which] ->
		region[r].version[which] = release_no;
		region[r].to[which] = whom;
		region[r].covered = (origin == r -> region[r].covered | BIT(which) : region[r].covered & ~BIT(which))
	:: else
	fi
}

inline ApplyNext(from)
{
	region[r].applied[from]++;
	i = region[r].applied[from] - 1;
	if
	:: region[from].stream[i].kind == WRITE ->
		MUST(loss[r].lost || region[r].value[region[from].stream[i].home] == region[from].stream[i].other,
			"VIOLATION P7: applied to a value that the write did not replace\n");
		region[r].value[region[from].stream[i].home] = region[from].stream[i].number
	:: region[from].stream[i].kind == RELEASE ->
		LearnRelease(region[from].stream[i].home, region[from].stream[i].number, region[from].stream[i].other, from)
	:: else
	fi
}

/* The last write of the home in what survives: the final part of a lost stream, or what survivors have of it. */
inline FindLast(h)
{
	last = 0;
	for (x : 0 .. REGIONS - 1) {
		reach = region[x].length;
		if
		:: loss[x].final -> reach = loss[x].position
		:: loss[x].lost && !loss[x].final ->
			reach = 0;
			for (o : 0 .. REGIONS - 1) {
				if
				:: o != x && !loss[o].lost && region[o].applied[x] > reach -> reach = region[o].applied[x]
				:: else
				fi
			}
		:: else
		fi;
		for (i : 1 .. reach) {
			if
			:: region[x].stream[i - 1].kind == WRITE && region[x].stream[i - 1].home == h &&
			   region[x].stream[i - 1].number > last -> last = region[x].stream[i - 1].number
			:: else
			fi
		}
	}
}

/* --- a region that goes on ----------------------------------------------------------------------------------- */

inline Write(h)
{
	writes < WRITES && SERVES(r, h) ->
	writes++;
	written[h]++;
	printf("%c makes write %d to home %d\n", NAME(r), written[h], h);
	FindLast(h);
	MUST(last == region[r].value[h], "VIOLATION P8: written on another value than the last that survives\n");
	Append(WRITE, h, written[h], region[r].value[h]);
	region[r].value[h] = written[h]
}

inline Release(h, whom)
{
	releases < RELEASES && whom != r && SERVES(r, h) ->
	releases++;
	printf("%c releases home %d to %c\n", NAME(r), h, NAME(whom));
	Append(RELEASE, h, region[r].version[h] + 1, whom);
	LearnRelease(h, region[r].version[h] + 1, whom, r)
}

inline Accept(h)
{
	OWNER(r, h) == r && region[r].accepted[h] < region[r].version[h] && !serve_before_acceptance && MAY_ACT(r) ->
	printf("%c accepts home %d\n", NAME(r), h);
	Append(ACCEPT, h, region[r].version[h], 0);
	region[r].accepted[h] = region[r].version[h]
}

#define MUST_DEPEND(r, h)   (INHERITS(r, h) && !HAS_DEPENDED(r, h))

inline Depend()
{
	region[r].health == UP && SOME_HOME(MUST_DEPEND, r) && MAY_ACT(r) ->
	printf("%c writes what it depends on\n", NAME(r));
	Append(DEPEND, 0, 0, 0)
}

inline Apply(from)
{
	from != r && region[r].applied[from] < region[from].length && region[r].health == UP && region[from].health == UP &&
	!region[r].out && !region[from].out && (no_fence || !IN(region[r].fenced, from)) && BARRIER_HOLDS(r, from) ->
	printf("%c applies entry %d of %c\n", NAME(r), region[r].applied[from] + 1, NAME(from));
	ApplyNext(from)
}

/* --- faults and leases --------------------------------------------------------------------------------------- */

inline IsCutOff()
{
	faults < FAULTS && IN(MAY_FAIL, r) && region[r].health == UP && !loss[r].lost ->
	printf("%c is cut off\n", NAME(r));
	faults++;
	region[r].health = CUT_OFF
}

inline Dies()
{
	faults < FAULTS && IN(MAY_FAIL, r) && region[r].health == UP && !loss[r].lost ->
	printf("%c dies\n", NAME(r));
	faults++;
	region[r].health = DEAD
}

inline StopApplying(from)
{
	region[r].fenced = region[r].fenced | BIT(from);
	if
	:: loss[from].final && region[r].applied[from] > loss[from].position -> region[r].out = true
	:: else
	fi
}

/* It hears what was decided before anything else. Then those that have not voted against each other promise anew. */
inline Return()
{
	region[r].health == CUT_OFF ->
	printf("%c is back\n", NAME(r));
	region[r].health = UP;
	for (o : 0 .. REGIONS - 1) {
		if
		:: o != r && loss[o].lost && !no_fence && !IN(region[r].fenced, o) -> StopApplying(o)
		:: else
		fi
	}
	if
	:: loss[r].lost && !no_fence -> region[r].out = true
	:: else
	fi;
	for (o : 0 .. REGIONS - 1) {
		if
		:: region[o].health == UP && !IN(loss[r].votes, o) -> region[r].lapsed = region[r].lapsed & ~BIT(o)
		:: else
		fi;
		if
		:: region[o].health == UP && !IN(loss[o].votes, r) -> region[o].lapsed = region[o].lapsed & ~BIT(r)
		:: else
		fi
	}
}

/* The holder counts a promise no more. One that is heard asks again in time, unless somebody wants it lost. */
inline Lapse(by)
{
	by != r && !IN(region[r].lapsed, by) && region[r].health != DEAD && region[by].health == UP &&
	(region[r].health == CUT_OFF || loss[r].votes) ->
	printf("the promise of %c to %c counts no more\n", NAME(by), NAME(r));
	region[r].lapsed = region[r].lapsed | BIT(by)
}

/* --- a region is lost ---------------------------------------------------------------------------------------- */

/* What the holder counts ends first, then what the voter promised. */
#define PROMISE_IS_OVER(r, gone)  (IN(region[gone].lapsed, r) || region[gone].health == DEAD || vote_early || no_lease)

inline Vote(gone)
{
	gone != r && region[r].health == UP && !region[r].out && !loss[gone].lost && !IN(loss[gone].votes, r) &&
	(region[gone].health != UP || loss[gone].votes) && PROMISE_IS_OVER(r, gone) ->
	printf("%c votes that %c is lost\n", NAME(r), NAME(gone));
	loss[gone].votes = loss[gone].votes | BIT(r);
	loss[gone].lost = HAS_MAJORITY(gone)
}

/* A lost region that still runs. */
inline Hear()
{
	region[r].health == UP && loss[r].lost && !region[r].out && !no_fence ->
	printf("%c hears that it is lost\n", NAME(r));
	region[r].out = true
}

inline Fence(gone)
{
	gone != r && loss[gone].lost && region[r].health == UP && !loss[r].lost && !region[r].out && !IN(region[r].fenced, gone) ->
	printf("%c stops applying from %c\n", NAME(r), NAME(gone));
	StopApplying(gone)
}

#define HAS_STOPPED(x, s)   (s == x || loss[s].lost || IN(region[s].fenced, x) || skip_survivors || \
	(skip_after_lease && !HAS_LEASE(s)))

/* The heir has all that it needs to know. */
inline Finalize(gone)
{
	loss[gone].lost && !loss[gone].final && HEIR(gone) == r && IN(region[r].fenced, gone) && EACH(&&, HAS_STOPPED, gone) ->
	reach = 0;
	for (o : 0 .. REGIONS - 1) {
		if
		:: o != gone && !loss[o].lost && IN(region[o].fenced, gone) && region[o].applied[gone] > reach -> reach = region[o].applied[gone]
		:: else
		fi
	}
	loss[gone].position = (own_position -> region[r].applied[gone] : reach);
	loss[gone].final = true;
	/* At once, so that their majorities are as small as they can be. */
	for (o : 0 .. REGIONS - 1) {
		if
		:: !loss[o].lost -> region[o].former = region[o].former | BIT(gone)
		:: else
		fi
	}
	printf("the final position of %c is %d\n", NAME(gone), loss[gone].position)
}

#define HAS_NEXT(r, gone, s)  (s != r && s != gone && region[s].health == UP && !region[s].out && \
	region[s].applied[gone] > region[r].applied[gone])

inline PassOn(gone)
{
	gone != r && loss[gone].final && region[r].applied[gone] < loss[gone].position && region[r].health == UP && !region[r].out &&
	IN(region[r].fenced, gone) && !no_relay && EACH2(||, HAS_NEXT, r, gone) && BARRIER_HOLDS(r, gone) ->
	printf("%c gets entry %d of %c passed on\n", NAME(r), region[r].applied[gone] + 1, NAME(gone));
	ApplyNext(gone)
}

inline TakeOver(gone)
{
	loss[gone].final && HEIR(gone) == r && loss[gone].taken_by != r + 1 && region[r].health == UP && MAY_ACT(r) &&
	IN(region[r].fenced, gone) && (no_relay || (HAS_TAIL(r, gone) && (one_tail || EACH(&&, TAIL_OR_ALIVE, r)))) ->
	printf("%c takes over from %c\n", NAME(r), NAME(gone));
	Append(TAKEOVER, 0, 0, 0);
	loss[gone].taken_by = r + 1;
	loss[gone].position = (no_relay -> region[r].applied[gone] : loss[gone].position)
}

active [REGIONS] proctype Lives()
{
	byte r = _pid;

end:	do
	HOME_OPTIONS(Write)
	MOVE_OPTIONS(Release)
	HOME_OPTIONS(Accept)
	OPTION(Depend())
	REGION_OPTIONS(Apply)
	OPTION(IsCutOff())
	OPTION(Dies())
	OPTION(Return())
	REGION_OPTIONS(Lapse)
	REGION_OPTIONS(Vote)
	OPTION(Hear())
	REGION_OPTIONS(Fence)
	REGION_OPTIONS(Finalize)
	REGION_OPTIONS(PassOn)
	REGION_OPTIONS(TakeOver)
	od
}

/* --- what must hold ------------------------------------------------------------------------------------------ */

#define SERVERS(h, r)       SERVES(r, h)
#define IS_SERVED_BY_MANY(h) (EACH(+, SERVERS, h) > 1)

/* Without a majority nobody gets to the end. */
#define IS_SETTLED(x, r)    (region[r].health == UP || loss[r].final)
#define IS_SERVED(h)        (EACH(+, SERVERS, h) == 1)
#define COUNTS(r)           (region[r].health == UP && !loss[r].lost && !region[r].out)

active proctype Watches()
{
end:	do
	:: d_step {
		IS_SERVED_BY_MANY(0) || IS_SERVED_BY_MANY(HOMES - 1) ->
		MUST(false, "VIOLATION P1: two regions serve one home\n")
	}
	:: timeout && EACH(&&, IS_SETTLED, 0) ->
		d_step {
			MUST(FAULTS > 1 || (IS_SERVED(0) && IS_SERVED(HOMES - 1)), "VIOLATION P8: in the end a home is served by nobody\n");
			first = REGIONS;
			for (o : 0 .. REGIONS - 1) {
				if
				:: COUNTS(o) && first == REGIONS -> first = o
				:: COUNTS(o) && first != REGIONS ->
					for (i : 0 .. HOMES - 1) {
						MUST(region[o].value[i] == region[first].value[i], "VIOLATION P8: copies differ in the end\n")
					}
				:: else
				fi
			}
			i = 0; o = 0; first = 0
		}
		break
	od
}
