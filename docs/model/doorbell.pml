/*
 * The doorbell, the claim, the settle and the burial of dead instances, with the interval poll switched off.
 * README.md says what is modelled and what is not. scripts/model runs it.
 *
 * Every step that can't fail halfway is one d_step: a statement as Postgres sees it, or what a dispatcher notes by itself.
 * Polls, checks and watches that would change nothing are left out, so every run ends, and what would wait for ever shows
 * as a run that ends with an event still in the queue.
 */

#ifndef WRITERS
#define WRITERS 2       /* connections that write */
#endif
#ifndef WRITES
#define WRITES 1        /* transactions of each, one event each */
#endif
#ifndef DISPATCHERS
#define DISPATCHERS 2
#endif
#ifndef SILENCES
#define SILENCES 1      /* times that a dispatcher asks for silence */
#endif
#ifndef CRASHES
#define CRASHES 1       /* kill -9 at any point */
#endif
#ifndef STOPS
#define STOPS 0         /* graceful stops */
#endif
#ifndef LOSSES
#define LOSSES 0        /* listening sessions that break while their dispatcher lives */
#endif
#ifndef EXPIRIES
#define EXPIRIES 0      /* leases that end before their claim is settled */
#endif
#ifndef FAILURES
#define FAILURES 0      /* attempts that the receiver refuses, to be retried */
#endif

#define EVENTS (WRITERS * WRITES)
#define RING 1          /* the doorbell's value; any other one is an instance's id */
#define BIT(x) (1 << (x))
#define HAS(set, x) (((set) >> (x)) & 1)

/* Where an event is. */
#define NOWHERE 0
#define OPEN 1          /* inserted, not committed */
#define QUEUE 2         /* committed, in event_log */
#define ARCHIVE 3
#define ROLLED_BACK 4

/* listener.State */
#define UNARMED 0
#define ARMING 1
#define RINGING 2
#define SILENT 3

/* What the claimer is in the middle of. */
#define IDLE 0
#define CLAIMING 1      /* its rows are locked, its commit is to come */
#define ARM 2           /* Ring: the first half is done */

/* The listener. */
#define NO_SESSION 0
#define REGISTERED 1    /* holds the instance lock and has its row in rowhook.instance */
#define LISTENING 2

/* The database. Sets of events or transactions (an event has its transaction to itself) and of instances are bit masks. */
byte bell = RING;
byte place[EVENTS];
byte due;               /* due_at has come */
byte later;             /* retries that wait */
byte by[EVENTS];        /* claimed_by; 0: null */
byte tries[EVENTS];
byte open;              /* transactions that have an id and are not over */
byte alive;             /* instances whose lock is held */
byte registered;        /* rowhook.instance */
byte nextId = 2;
#ifdef SNAPSHOT
byte older[EVENTS];     /* the transactions that were open, with lower ids, when this one took its id */
byte covered;           /* open transactions below the highest completed id */
#endif

/* Claims that a killed dispatcher left running in its server process. */
byte ghost, ghostRows;

/* The dispatchers. */
byte id[DISPATCHERS];   /* 0: not running */
byte state[DISPATCHERS];
byte doing[DISPATCHERS];
byte session[DISPATCHERS];
byte rows[DISPATCHERS];     /* locked by its claim */
byte below[DISPATCHERS];    /* open transactions below its horizon */
byte bury[DISPATCHERS];     /* whom it found dead; 1: it has given back their events and not looked yet */
byte knows[DISPATCHERS];    /* events whose due time its timer leads to */
bool changed[DISPATCHERS];  /* a check of the horizon would find fewer than the last one */
bool look[DISPATCHERS];     /* something may be due: a lane that is not drained */
bool lost[DISPATCHERS];     /* the doorbell has to be armed anew */
byte held[DISPATCHERS * EVENTS];    /* claims to send, as a set of their tries */
byte sent[DISPATCHERS * EVENTS];    /* claims that were delivered, to settle */
byte refused[DISPATCHERS * EVENTS]; /* claims that the receiver refused, to settle */

/* What may still happen of each. The world may end it at any time, so that no fault is needed to get out of a wait. */
byte silences = SILENCES, crashes = CRASHES, stops = STOPS, losses = LOSSES, expiries = EXPIRIES, failures = FAILURES;
byte retired;           /* dispatchers that died and will not come back */

byte delivered;         /* events that a receiver has seen */

#define AT(d, e) ((d) * EVENTS + (e))
#define IS_ALIVE(i) (HAS(registered, i) && HAS(alive, i))

byte i_, e_, r_;        /* scratch of a d_step, 0 outside */
#define WHO printf("dispatcher %d, instance %d: ", d, id[d])
#define DONE i_ = 0; e_ = 0; r_ = 0
#define EACH_EVENT e_ = 0; do :: e_ >= EVENTS -> break :: else ->
#define NEXT_EVENT e_++ od
#define EACH_DISPATCHER i_ = 0; do :: i_ >= DISPATCHERS -> break :: else ->
#define NEXT_DISPATCHER i_++ od

#if DISPATCHERS == 1
#define LOCKS (ghostRows | rows[0])
#elif DISPATCHERS == 2
#define LOCKS (ghostRows | rows[0] | rows[1])
#else
#define LOCKS (ghostRows | rows[0] | rows[1] | rows[2])
#endif

/* A transaction with this id is over. */
inline end_transaction(e) {
	open = open & ~BIT(e);
	EACH_DISPATCHER
		if
		:: HAS(below[i_], e) -> below[i_] = below[i_] & ~BIT(e); changed[i_] = true
		:: else
		fi;
	NEXT_DISPATCHER;
#ifdef SNAPSHOT
	covered = (covered | older[e]) & open;
	older[e] = 0;
	EACH_EVENT older[e_] = older[e_] & open; NEXT_EVENT;
#endif
}

/* A short transaction of a dispatcher, which takes an id and completes. */
inline short_transaction() {
#ifdef SNAPSHOT
	covered = open;
#endif
	skip
}

/* An event that waited has become due: dispatchers whose timer leads there look, and learn what comes next. */
inline ripen(e) {
	due = due | BIT(e);
	later = later & ~BIT(e);
	EACH_DISPATCHER
		if
		:: HAS(knows[i_], e) -> look[i_] = true; knows[i_] = knows[i_] & ~BIT(e); r_ = BIT(i_) | r_
		:: else
		fi;
	NEXT_DISPATCHER;
	EACH_DISPATCHER
		if
		:: HAS(r_, i_) -> ask_next_due(i_)
		:: else
		fi;
	NEXT_DISPATCHER
}

/* NextDue: retries and leases alike. */
inline ask_next_due(d) {
	EACH_EVENT
		if
		:: place[e_] == QUEUE && !HAS(due, e_) -> knows[d] = knows[d] | BIT(e_)
		:: else
		fi;
	NEXT_EVENT
}

inline to_archive(e) {
	assert(HAS(delivered, e)); /* every event in the archive was delivered */
	place[e] = ARCHIVE;
	due = due & ~BIT(e);
	later = later & ~BIT(e);
	by[e] = 0;
	tries[e] = 0;
	EACH_DISPATCHER knows[i_] = knows[i_] & ~BIT(e); NEXT_DISPATCHER
}

/* The instance forgets everything: its process has ended. */
inline forget(d) {
	alive = alive & ~BIT(id[d]);
	id[d] = 0; state[d] = UNARMED; doing[d] = IDLE; session[d] = NO_SESSION;
	rows[d] = 0; below[d] = 0; bury[d] = 0; knows[d] = 0;
	changed[d] = false; look[d] = false; lost[d] = false;
	EACH_EVENT held[AT(d, e_)] = 0; sent[AT(d, e_)] = 0; refused[AT(d, e_)] = 0; NEXT_EVENT
}

/* One bit per event. */
#define EVERY(what) (what(0) EVERY1(what) EVERY2(what) EVERY3(what))
#if EVENTS > 1
#define EVERY1(what) | what(1)
#else
#define EVERY1(what)
#endif
#if EVENTS > 2
#define EVERY2(what) | what(2)
#else
#define EVERY2(what)
#endif
#if EVENTS > 3
#define EVERY3(what) | what(3)
#else
#define EVERY3(what)
#endif

#define HELD_(e) ((held[AT(d, e)] != 0) << e)
#define HELD(d) EVERY(HELD_)
#define UNSETTLED_(e) (sent[AT(d, e)] | refused[AT(d, e)])
#define UNSETTLED(d) EVERY(UNSETTLED_)
#define OWNED_(e) ((by[e] == bury[d]) << e)
#define OWNED EVERY(OWNED_)

/* Giving back waits for the rows that others have locked, and for claims of the dead instance that are under way. */
#ifdef LATE_CLAIM
#define CAN_RECLAIM(instance) ((OWNED & LOCKS) == 0)
#else
#if DISPATCHERS == 1
#define CLAIMS_OF(instance) (ghostRows != 0 && ghost == instance)
#elif DISPATCHERS == 2
#define CLAIMS_OF(instance) (ghostRows != 0 && ghost == instance || rows[0] != 0 && id[0] == instance || rows[1] != 0 && id[1] == instance)
#else
#define CLAIMS_OF(instance) (ghostRows != 0 && ghost == instance || rows[0] != 0 && id[0] == instance || rows[1] != 0 && id[1] == instance || rows[2] != 0 && id[2] == instance)
#endif
#define CAN_RECLAIM(instance) ((OWNED & LOCKS) == 0 && !CLAIMS_OF(instance))
#endif

/* Dispatchers are alike: where there is one fault it strikes the first. */
#if CRASHES + STOPS + LOSSES <= 1
#define MAY_FAIL(d) (d == 0)
#else
#define MAY_FAIL(d) true
#endif
#define IN_TURN(w) (w == 0 || place[(w == 0 -> 0 : w - 1) * WRITES] != NOWHERE)

/* An instance claims, asks for silence and buries others only while it is registered: else nobody would find it dead. */
#ifdef UNREGISTERED
#define MAY_ACT(d) (id[d] != 0)
#else
#define MAY_ACT(d) (id[d] != 0 && HAS(registered, id[d]))
#endif

#ifdef NO_FENCE
#define FENCE(e) true
#else
#define FENCE(e) (by[e] == id[d] && tries[e] == r_)
#endif

#ifdef UNSENT
#define RECEIVED(e) skip
#else
#define RECEIVED(e) delivered = delivered | BIT(e)
#endif

#define LOWEST(set) r_ = 1; do :: HAS(set, r_) -> break :: else -> r_++ od
#define MINE(e) (by[e] == id[d] && tries[e] == r_)

/* An attempt, and the settling of its outcome: to the archive, or due again later. */
#define SEND_AND_SETTLE(e) \
	:: d_step { held[AT(d, e)] != 0 -> \
		LOWEST(held[AT(d, e)]); \
		held[AT(d, e)] = held[AT(d, e)] & ~BIT(r_); \
		WHO; printf("sends event %d\n", e); \
		assert(place[e] == QUEUE || place[e] == ARCHIVE); \
		RECEIVED(e); \
		sent[AT(d, e)] = sent[AT(d, e)] | BIT(r_); \
		DONE } \
	:: d_step { failures > 0 && held[AT(d, e)] != 0 -> \
		failures--; \
		WHO; printf("is refused event %d\n", e); \
		assert(place[e] == QUEUE || place[e] == ARCHIVE); \
		LOWEST(held[AT(d, e)]); \
		held[AT(d, e)] = held[AT(d, e)] & ~BIT(r_); \
		refused[AT(d, e)] = refused[AT(d, e)] | BIT(r_); \
		DONE } \
	:: d_step { sent[AT(d, e)] != 0 && !HAS(LOCKS, e) -> \
		LOWEST(sent[AT(d, e)]); \
		sent[AT(d, e)] = sent[AT(d, e)] & ~BIT(r_); \
		if \
		:: place[e] == QUEUE && FENCE(e) -> \
			WHO; printf("settles event %d\n", e); \
			assert(MINE(e)); \
			to_archive(e); \
			short_transaction() \
		:: else \
		fi; \
		DONE } \
	:: d_step { refused[AT(d, e)] != 0 && !HAS(LOCKS, e) -> \
		LOWEST(refused[AT(d, e)]); \
		refused[AT(d, e)] = refused[AT(d, e)] & ~BIT(r_); \
		if \
		:: place[e] == QUEUE && FENCE(e) -> \
			WHO; printf("puts off event %d\n", e); \
			assert(MINE(e)); \
			by[e] = 0; \
			due = due & ~BIT(e); \
			later = later | BIT(e); \
			knows[d] = knows[d] | BIT(e); \
			short_transaction() \
		:: else \
		fi; \
		DONE }

/* A retry becomes due; a lease ends. */
#define HAPPENS(e) \
	:: d_step { HAS(later, e) -> \
		printf("world: the retry of event %d is due\n", e); \
		ripen(e); \
		DONE } \
	:: d_step { expiries > 0 && place[e] == QUEUE && by[e] != 0 && !HAS(due, e) -> \
		expiries--; \
		printf("world: the lease of event %d ends\n", e); \
		ripen(e); \
		DONE }

proctype writer(byte w) {
	byte e;
	bool quiet;
	e = w * WRITES;
	IN_TURN(w); /* writers are alike: they begin in the order of their numbers */
	do
	:: e < (w + 1) * WRITES ->
#ifdef READ_FIRST
		d_step { quiet = bell != RING; printf("writer %d: reads the bell (%d)\n", w, bell) };
#endif
		d_step {
			printf("writer %d: inserts event %d, taking a transaction id\n", w, e);
			place[e] = OPEN;
#ifdef DIRTY_READ
			due = due | BIT(e);
#endif
#ifdef SNAPSHOT
			older[e] = open;
#endif
			open = open | BIT(e)
		};
#ifndef READ_FIRST
		d_step { quiet = bell != RING; printf("writer %d: reads the bell (%d)\n", w, bell) };
#endif
		if
		:: d_step { /* commit */
			printf("writer %d: commits event %d, quiet %d\n", w, e, quiet);
			place[e] = QUEUE;
			due = due | BIT(e);
			end_transaction(e);
			if
			:: !quiet ->
				EACH_DISPATCHER
					if
					:: session[i_] == LISTENING -> look[i_] = true
					:: else
					fi;
				NEXT_DISPATCHER
			:: else
			fi;
			quiet = false;
			DONE }
		:: d_step { /* roll back */
			printf("writer %d: rolls back event %d\n", w, e);
			place[e] = ROLLED_BACK;
			end_transaction(e);
			quiet = false;
			DONE }
		fi;
		e++
	:: else -> break
	od
}

proctype dispatcher(byte d) {
end:
	do
	/* ---- the process ---- */
	:: d_step { id[d] == 0 && !HAS(retired, d) ->
		id[d] = nextId; nextId++;
		WHO; printf("starts\n");
		look[d] = true }
	:: d_step { id[d] == 0 && !HAS(retired, d) && (retired | BIT(d)) != BIT(DISPATCHERS) - 1 ->
		WHO; printf("does not come back\n");
		retired = retired | BIT(d) } /* one of them does */
	:: d_step { MAY_FAIL(d) && crashes > 0 && id[d] != 0 && doing[d] != CLAIMING ->
		crashes--;
		WHO; printf("crashes\n");
		forget(d);
		DONE }
	:: d_step { MAY_FAIL(d) && crashes > 0 && doing[d] == CLAIMING && ghostRows == 0 -> /* its server process goes on for a while */
		crashes--;
		WHO; printf("crashes, its claim goes on\n");
		ghost = id[d]; ghostRows = rows[d];
		forget(d);
		DONE }
	:: d_step { MAY_FAIL(d) && stops > 0 && id[d] != 0 && doing[d] == IDLE && bury[d] == 0 && UNSETTLED(d) == 0 && (HELD(d) & LOCKS) == 0 ->
		stops--;
		WHO; printf("stops, giving back what it has not sent\n");
		EACH_EVENT
			if
			:: by[e_] == id[d] && HAS(held[AT(d, e_)], tries[e_]) -> by[e_] = 0; due = due | BIT(e_) /* released */
			:: else
			fi;
		NEXT_EVENT;
#ifdef LEAVE
		registered = registered & ~BIT(id[d]);
#endif
		forget(d);
		DONE }

	/* ---- listener ---- */
	:: d_step { id[d] != 0 && session[d] == NO_SESSION -> /* the lock first: nobody is registered without having held it */
		WHO; printf("takes its lock and registers\n");
		alive = alive | BIT(id[d]);
		registered = registered | BIT(id[d]);
		session[d] = REGISTERED }
	:: d_step { session[d] == REGISTERED ->
		WHO; printf("listens\n");
		session[d] = LISTENING;
		lost[d] = true; look[d] = true }
	:: d_step { MAY_FAIL(d) && losses > 0 && session[d] == LISTENING ->
		losses--;
		WHO; printf("loses its session and its lock\n");
		session[d] = NO_SESSION;
		alive = alive & ~BIT(id[d]);
		lost[d] = true }

	/* ---- claimer: doorbell ---- */
	:: d_step { lost[d] && doing[d] == IDLE ->
		lost[d] = false;
		state[d] = UNARMED; below[d] = 0; changed[d] = false }
#ifdef ARM_LAST
	:: d_step { session[d] == LISTENING && doing[d] == IDLE && !lost[d] && !look[d] && (state[d] == UNARMED || state[d] == SILENT) ->
		WHO; printf("arms the bell and sleeps\n");
		bell = RING;
		state[d] = RINGING }
#else
	:: d_step { session[d] == LISTENING && doing[d] == IDLE && !lost[d] && (state[d] == UNARMED || state[d] == SILENT) ->
#ifdef ID_FIRST
		WHO; printf("takes a horizon\n");
		below[d] = open;
#else
		WHO; printf("arms the bell\n");
		bell = RING;
#endif
		doing[d] = ARM }
	:: d_step { doing[d] == ARM ->
#ifdef ID_FIRST
		WHO; printf("arms the bell\n");
		bell = RING;
#elif defined(SNAPSHOT)
		WHO; printf("takes a horizon\n");
		below[d] = open & covered;
#else
		WHO; printf("takes a horizon\n");
		below[d] = open;
#endif
		state[d] = ARMING; changed[d] = true; look[d] = true;
		doing[d] = IDLE }
#endif
	:: d_step { session[d] == LISTENING && doing[d] == IDLE && !lost[d] && state[d] == ARMING && changed[d] ->
		changed[d] = false; look[d] = true;
		if
		:: below[d] == 0 -> WHO; printf("finds nothing open below its horizon: it may sleep\n"); state[d] = RINGING
		:: else -> WHO; printf("finds transactions open below its horizon\n")
		fi }
	:: d_step { silences > 0 && MAY_ACT(d) && session[d] == LISTENING && doing[d] == IDLE && !lost[d] && state[d] != UNARMED ->
		silences--;
		WHO; printf("asks for silence\n");
		bell = id[d];
		state[d] = SILENT; below[d] = 0; changed[d] = false }

	/* ---- claimer: claim ---- */
	:: d_step { doing[d] == IDLE && MAY_ACT(d) && (look[d] || state[d] == SILENT && !lost[d] && (due & ~LOCKS) != 0) ->
		look[d] = false;
		rows[d] = due & ~LOCKS;
		if
		:: rows[d] != 0 -> WHO; printf("claims\n"); doing[d] = CLAIMING
		:: else -> WHO; printf("looks and finds nothing\n")
		fi }
	:: d_step { doing[d] == CLAIMING ->
		WHO; printf("has its claim committed\n");
		EACH_EVENT
			if
			:: HAS(rows[d], e_) ->
				by[e_] = id[d];
				tries[e_]++;
				held[AT(d, e_)] = held[AT(d, e_)] | BIT(tries[e_])
			:: else
			fi;
		NEXT_EVENT;
		due = due & ~rows[d];
		rows[d] = 0;
		short_transaction();
		doing[d] = IDLE;
		DONE }

	/* ---- peers ---- */
#ifndef NO_WATCH
	:: d_step { id[d] != 0 && bell != RING && state[d] != UNARMED && !lost[d] && (bell == id[d] && state[d] != SILENT && doing[d] == IDLE || bell != id[d] && !IS_ALIVE(bell)) ->
		WHO; printf("sees silence that nobody keeps\n");
		lost[d] = true }
	:: d_step { session[d] == LISTENING && !HAS(registered, id[d]) ->
		WHO; printf("registers again\n");
		registered = registered | BIT(id[d]) }
	:: d_step { MAY_ACT(d) && bury[d] == 0 && (registered & ~alive & ~BIT(id[d])) != 0 ->
		i_ = 2;
		do
		:: i_ == id[d] || !HAS(registered, i_) || HAS(alive, i_) -> i_++
		:: else -> break
		od;
		bury[d] = i_;
		printf("dispatcher %d, instance %d: finds instance %d dead\n", d, id[d], i_);
		DONE }
	:: d_step { bury[d] > 1 && CAN_RECLAIM(bury[d]) ->
		printf("dispatcher %d, instance %d: gives back what instance %d had, and forgets it\n", d, id[d], bury[d]);
		EACH_EVENT
			if
			:: by[e_] == bury[d] -> by[e_] = 0; due = due | BIT(e_)
			:: else
			fi;
		NEXT_EVENT;
		registered = registered & ~BIT(bury[d]);
		short_transaction();
		bury[d] = 1;
		DONE }
	:: d_step { bury[d] == 1 ->
		WHO; printf("looks after the burial\n");
		bury[d] = 0;
		look[d] = true;
		ask_next_due(d);
#ifndef KEEP_BELL
		lost[d] = true;
#endif
		DONE }
#endif

	/* ---- senders and settler ---- */
	SEND_AND_SETTLE(0)
#if EVENTS > 1
	SEND_AND_SETTLE(1)
#endif
#if EVENTS > 2
	SEND_AND_SETTLE(2)
#endif
#if EVENTS > 3
	SEND_AND_SETTLE(3)
#endif
	od
}

/* What happens by itself. */
proctype world() {
	byte e;
end:
	do
	:: d_step { silences + crashes + stops + losses + expiries + failures > 0 -> /* from here on nothing disturbs */
		silences = 0; crashes = 0; stops = 0; losses = 0; expiries = 0; failures = 0 }
	:: d_step { ghostRows != 0 -> /* the server process that a killed dispatcher left commits */
		printf("world: the claim that instance %d left behind commits\n", ghost);
		EACH_EVENT
			if
			:: HAS(ghostRows, e_) -> by[e_] = ghost; tries[e_]++
			:: else
			fi;
		NEXT_EVENT;
		due = due & ~ghostRows;
		ghost = 0; ghostRows = 0;
		short_transaction();
		DONE }
	:: d_step { ghostRows != 0 -> /* or rolls back */
		printf("world: the claim that instance %d left behind rolls back\n", ghost);
		ghost = 0; ghostRows = 0 }
	HAPPENS(0)
#if EVENTS > 1
	HAPPENS(1)
#endif
#if EVENTS > 2
	HAPPENS(2)
#endif
#if EVENTS > 3
	HAPPENS(3)
#endif
	od
}

/* Where nothing moves any more, every transaction is over and every committed event was delivered. */
proctype monitor() {
	byte e;
	timeout -> d_step {
		do
		:: e < EVENTS ->
			if
			:: place[e] == QUEUE -> printf("monitor: nothing moves any more, and event %d was not delivered\n", e)
			:: else
			fi;
			assert(place[e] == ARCHIVE || place[e] == ROLLED_BACK);
			e++
		:: else -> break
		od }
}

init {
	byte n;
	atomic {
		n = 0;
		do
		:: n < DISPATCHERS ->
#ifndef COLD
			/* All of them run and sleep, the bell is armed. */
			id[n] = nextId;
			alive = alive | BIT(nextId);
			registered = registered | BIT(nextId);
			nextId++;
			session[n] = LISTENING;
			state[n] = RINGING;
#endif
			run dispatcher(n); n++
		:: else -> break
		od;
		n = 0;
		do
		:: n < WRITERS -> run writer(n); n++
		:: else -> break
		od;
		run world();
		run monitor();
		n = 0
	}
}

#ifdef LIVENESS
ltl arrives { [] (place[0] == QUEUE -> <> (place[0] == ARCHIVE)) }
#endif
