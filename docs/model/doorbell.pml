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
#define LOSSES 0        /* listening sessions that break while their dispatcher lives. With DEAF, some for good */
#endif
#ifndef HANGS
#define HANGS 0         /* instances that can't show for long that they live, and do */
#endif
#if !defined(RELEASES) && !defined(UNABLE)
#define RELEASES 0      /* claimed events that are given back unsent, as when a trigger is paused */
#endif
#ifndef COMMANDS
#define COMMANDS 0      /* times that a bell which rings is silenced by someone who sees nobody listen, be it too late */
#endif
#ifndef ANSWERS
#define ANSWERS 0       /* statements that commit, and whose answers get lost */
#endif
#ifndef EXPIRIES
#define EXPIRIES 0      /* leases that end before their claim is settled */
#endif
#ifndef FAILURES
#define FAILURES 0      /* attempts that the receiver refuses, to be retried */
#endif
#ifndef DELAYS
#define DELAYS 0        /* events that are due some time after their commit: the first ones */
#endif
#ifndef AGES
#define AGES 0          /* events that get too old to be sent */
#endif
#ifndef FORGERIES
#define FORGERIES 0     /* notifications of a handed event that somebody else sends */
#endif

/*
 * HANDOVER: writers hand events over, to one dispatcher. OLD: the last dispatcher runs the version before, which knows nothing
 * of that. UNABLE: the first one can't send what it is handed. STAY_SILENT: silence may last for ever.
 */
#if defined(HANDOVER) && (defined(OLD) || defined(UNABLE) || DISPATCHERS > 2)
#define COUNTED         /* burials count as departures do. It makes no difference to two alike */
#endif
#ifdef UNABLE
#define RELEASES 1
#define NO_RELEASES     /* but for what it is handed */
#endif

/*
 * PAUSES: the receiver is gone, and its answer pauses the trigger. An operator makes good what is wrong, and then resumes
 * the trigger, once.
 */
#ifndef RELOADS
#define RELOADS 0       /* loads of the configuration for another reason than a pause */
#endif

#if defined(LIVE_BY_SESSION) || defined(BELIEVE_LOCK)
#define LOCKS_COUNT
#endif

/* A request takes time only where something may happen meanwhile. */
#if defined(PAUSES) || AGES > 0
#define FLIGHT
#endif
#if defined(PAUSES) && RELEASES == 0
#undef RELEASES
#define RELEASES 1
#define NO_RELEASES     /* but for what is given back because of a pause */
#endif

/* A burial is several statements. That makes a difference only where who buries may die as well, or the one that is buried lives. */
#if HANGS > 0 || CRASHES > 1 || CRASHES > 0 && STOPS > 0 || defined(LIVE_BY_SESSION)
#define STEPWISE
#endif

#define EVENTS (WRITERS * WRITES)
#define RING 1          /* the doorbell's value; any other one is an instance's id, or */
#define NOBODY 0
#define BIT(x) (1 << (x))
#define HAS(set, x) (((set) >> (x)) & 1)

/* Where an event is. */
#define NOWHERE 0
#define OPEN 1          /* inserted, not committed */
#define QUEUE 2         /* committed, in event_log */
#define ARCHIVE 3
#define ROLLED_BACK 4
#define DEAD_LETTER 5   /* it was too old */

/* listener.State */
#define UNARMED 0
#define ARMING 1
#define RINGING 2
#define SILENT 3

/* What the claimer is in the middle of. */
#define IDLE 0
#define CLAIMING 1      /* its rows are locked, its commit is to come */
#define ARM 2           /* Ring: the first half is done */
#define STOPPING 3      /* it claims no more, and is about to unregister */

/* The listener. */
#define NO_SESSION 0
#define PREPARED 1      /* holds the instance lock and has said so */
#define LISTENING 2

/* What the housekeeper is in the middle of. */
#define NO_BURIAL 0
#define FOUND 1         /* someone is dead */
#define GIVEN_BACK 2    /* what it had, once */
#define FORGOTTEN 3     /* it is no longer in rowhook.instance */

/* The database. Sets of events or transactions (an event has its transaction to itself) and of instances are bit masks. */
byte bell = RING;
byte place[EVENTS];
byte due;               /* due_at has come */
byte later;             /* retries that wait */
byte by[EVENTS];        /* claimed_by; 0: null */
byte claim[EVENTS];     /* number of the last claim: it never repeats */
#ifdef TRIES
byte tries[EVENTS];     /* counted down by what is given back unsent */
byte triesOf[EVENTS * 8]; /* by claim */
#endif
#ifdef PAUSES
byte attempts[EVENTS];  /* tries: what is given back unsent, or answered so that the trigger is paused, counts no attempt */
bool paused;            /* rowhook.trigger.paused */
byte version;           /* of the row of the trigger, which every pause and resume changes */
bool gone = true;       /* what the receiver answers */
bool resumed;           /* by the operator */
byte reloads = RELOADS;
#endif
#if AGES > 0
byte old;               /* events that are too old */
byte ages = AGES;
#endif
#if DELAYS > 0
byte young;             /* committed, and not due for the first time */
#endif
byte open;              /* transactions that have an id and are not over */
byte registered;        /* rowhook.instance */
byte unseen;            /* those of it that have not said for long that they live */
#ifdef HANDOVER
byte holder;            /* rowhook.handover: to whom writers hand over; 0: to nobody */
bool blocked;           /* but not events of this trigger */
byte excused;           /* events that may be sent again: of a crash, a lease that ended, an instance that was buried by mistake */
#if HANGS > 0
byte blind;             /* events that were handed to an instance after it had last said that it lives */
byte begun;             /* events that were sent as they were handed over */
#endif
#if defined(OLD) && DISPATCHERS == 2
byte late;              /* events that were handed to an instance that has gone, and were not committed then */
#endif
#endif
#if STOPS > 0
byte hears;             /* those of it that say that they listen */
#endif
#ifdef LOCKS_COUNT
byte locked;            /* instances whose lock is held: the protocol does not ask, it only gets to know sooner */
#endif
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
byte bury[DISPATCHERS];     /* whom it found dead */
byte burial[DISPATCHERS];   /* how far it is with that */
bool did[DISPATCHERS];      /* it has given something back, or forgotten it, and has to inherit */
byte knows[DISPATCHERS];    /* events whose due time its timer leads to */
bool changed[DISPATCHERS];  /* a check of the horizon would find fewer than the last one */
bool look[DISPATCHERS];     /* something may be due: a lane that is not drained */
bool lost[DISPATCHERS];     /* the doorbell has to be armed anew */
#ifdef DEAF
bool deaf[DISPATCHERS];     /* its listening session will not come back */
#endif
#if STOPS > 0 || defined(COUNTED)
bool left[DISPATCHERS];     /* another one has stopped, it has not noticed yet */
#endif
#ifdef HANDOVER
byte heard[DISPATCHERS];    /* events that were announced to it, which it has not looked for */
bool search[DISPATCHERS];   /* it is to look by the index of what was handed over */
byte reading[DISPATCHERS];  /* what it has found so, in an answer that is on its way */
byte since[DISPATCHERS];    /* what it has settled of that meanwhile */
#endif
byte held[DISPATCHERS * EVENTS];    /* claims to send, as a set of their numbers */
byte sent[DISPATCHERS * EVENTS];    /* claims that were delivered, to settle */
byte refused[DISPATCHERS * EVENTS]; /* claims that the receiver refused, to settle */
#if RELEASES > 0
byte unsent[DISPATCHERS * EVENTS];  /* claims that will not be sent, to settle */
#endif
#ifdef FLIGHT
byte flying[DISPATCHERS * EVENTS];  /* claims whose requests are on their way */
#endif
#if AGES > 0
byte expired[DISPATCHERS * EVENTS]; /* claims of events that are too old, to settle */
#endif
#if DELAYS > 0 || defined(PAUSES)
bool unasked[DISPATCHERS];  /* it does not know what is due next */
byte missed[DISPATCHERS];   /* events that have become due since it last looked */
#endif
#ifdef PAUSES
byte asked[DISPATCHERS * EVENTS];   /* the trigger's version as the request was made */
byte answer[DISPATCHERS * EVENTS];  /* claims whose answer pauses the trigger, which is not paused for it yet */
bool idle[DISPATCHERS];     /* claims nothing, as the trigger is paused or about to be */
byte suspended[DISPATCHERS];    /* 1 + the version for which it pauses the trigger itself; 0: it does not */
byte loaded[DISPATCHERS];   /* the version that it has in force */
bool reload[DISPATCHERS];   /* the configuration is to be loaded */
bool loading[DISPATCHERS];  /* it has read it: */
byte readVersion[DISPATCHERS];
bool readPaused[DISPATCHERS];
byte knowing[DISPATCHERS];  /* 1 + the version of a pause that it knows of; 0: none */
#endif
#if ANSWERS > 0
byte interrupted[DISPATCHERS * EVENTS]; /* claims that were lost, to disown */
#endif

/* What may still happen of each. The world may end it at any time, so that no fault is needed to get out of a wait. */
byte silences = SILENCES, crashes = CRASHES, stops = STOPS, losses = LOSSES, hangs = HANGS, releases = RELEASES, answers = ANSWERS, commands = COMMANDS, expiries = EXPIRIES, failures = FAILURES;
#if FORGERIES > 0
byte forgeries = FORGERIES;
#endif
byte retired;           /* dispatchers that died and will not come back */

byte delivered;         /* events that a receiver has seen */

#define AT(d, e) ((d) * EVENTS + (e))

/* Who is dead: who is registered and has not said for long that it lives. A session that listens is no part of it. */
#ifdef LIVE_BY_SESSION
#define DEAD (registered & ~locked)
#elif defined(BELIEVE_LOCK)
#define DEAD (registered & unseen & ~locked)
#else
#define DEAD (registered & unseen)
#endif
#define IS_ALIVE(i) (HAS(registered & ~DEAD, i))

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

#ifdef OLD
#define IS_NEW(d) (d != DISPATCHERS - 1)
#else
#define IS_NEW(d) true
#endif
#ifdef UNABLE
#define IS_UNABLE(d) (d == 0)
#else
#define IS_UNABLE(d) false
#endif

#ifdef HANDOVER
#define EXCUSE(e) excused = excused | BIT(e)

/* When an instance looks by the index of what was handed over. */
#define ARMED 1
#define CHECK 2
#define INHERITED 4
#define SILENCE 8
#define WATCH 16
#define FAILED 32
#define SEEN 64
#ifndef UNSEARCHED
#define UNSEARCHED 0
#endif
#define SEARCHES(when) ((UNSEARCHED & (when)) == 0)
#define SEARCHED(d, when) search[d] = search[d] || IS_NEW(d) && SEARCHES(when)

#define HANDED_TO(e, instance) (place[e] == QUEUE && by[e] == instance && claim[e] == 1)
#define HANDED_TO_NOBODY(e) (place[e] == QUEUE && by[e] != 0 && claim[e] == 1 && !HAS(registered, by[e]) && !HAS(LOCKS, e))
#define IN_MEMORY(d, e) ((held[AT(d, e)] | UNSETTLED_(e)) != 0)
#define FOUND_(e) ((HANDED_TO(e, id[d]) && MAY_READ(d) && !HAS(due, e) && !IN_MEMORY(d, e) || HANDED_TO_NOBODY(e)) << e)
#define SEARCHING(d) (heard[d] != 0 || search[d] || (state[d] == SILENT && !lost[d] && SEARCHES(SILENCE) || WATCHES(d) && SEARCHES(WATCH)) && EVERY(FOUND_) != 0)
#define IS_HANDED(c) ((c) == 1)
#define NOTE_SETTLED(e) since[d] = since[d] | (reading[d] & BIT(e))

#if HANGS > 0
#define HAND_BLIND(e) blind = (HAS(unseen, to) -> blind | BIT(e) : blind & ~BIT(e))
#define SEE(instance) blind = blind & ~OWNED(instance)
#define NOTE_BEGUN(e) begun = (IS_HANDED(r_) -> begun | BIT(e) : begun)
#define BACK_UNSENT(e) assert(claim[e] != 1 || !HAS(begun, e)) /* what counts as not sent was not sent */
#define BACK_UNSEEN(e) \
	if \
	:: HAS(blind, e) -> BACK_UNSENT(e); blind = blind & ~BIT(e) \
	:: else \
	fi
#else
#define HAND_BLIND(e) skip
#define SEE(instance) skip
#define NOTE_BEGUN(e) skip
#define BACK_UNSENT(e) skip
#define BACK_UNSEEN(e) skip
#endif

#ifdef TAKE_TWICE
#define MAY_TAKE(d, e) (!HAS(since[d], e))
#elif defined(TAKE_SETTLED)
#define MAY_TAKE(d, e) (!IN_MEMORY(d, e))
#else
#define MAY_TAKE(d, e) (!IN_MEMORY(d, e) && !HAS(since[d], e))
#endif
#else
#define EXCUSE(e) skip
#define SEARCHED(d, when) skip
#define IS_HANDED(c) false
#define NOTE_SETTLED(e) skip
#define SEE(instance) skip
#define NOTE_BEGUN(e) skip
#define BACK_UNSENT(e) skip
#define BACK_UNSEEN(e) skip
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
#if DELAYS > 0
	young = young & ~BIT(e);
#endif
#if DELAYS > 0 || defined(PAUSES)
	EACH_DISPATCHER missed[i_] = (id[i_] == 0 -> 0 : missed[i_] | BIT(e)); NEXT_DISPATCHER;
#endif
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
#if defined(PAUSES) && CRASHES + HANGS + STOPS + EXPIRIES + FAILURES == 0
	assert(attempts[e] == 1); /* an attempt whose answer has paused the trigger does not count */
#endif
	leaves(e)
}

/* The event is no longer in event_log. */
inline leaves(e) {
	due = due & ~BIT(e);
	later = later & ~BIT(e);
	by[e] = 0;
	claim[e] = 0;
#ifdef PAUSES
	attempts[e] = 0;
#endif
#if DELAYS > 0 || defined(PAUSES)
	EACH_DISPATCHER missed[i_] = missed[i_] & ~BIT(e); NEXT_DISPATCHER;
#endif
	EACH_DISPATCHER knows[i_] = knows[i_] & ~BIT(e); NEXT_DISPATCHER
}

#if AGES > 0
/* An attempt of it is on its way under a claim that holds. */
#define FLIES(d, e) (by[e] != 0 && by[e] == id[d] && !HAS(due, e) && HAS(flying[AT(d, e)], claim[e]))
inline to_dead_letters(e) {
	assert(HAS(old, e)); /* no event expires before its time */
	EACH_DISPATCHER
		assert(!FLIES(i_, e)); /* none expires while it is being sent */
	NEXT_DISPATCHER;
	place[e] = DEAD_LETTER;
	old = old & ~BIT(e);
	leaves(e)
}
#endif

/* The instance forgets everything: its process has ended, and says no more that it lives. */
inline forget(d) {
	unseen = (unseen | BIT(id[d])) & registered;
#ifdef LIVE_BY_SESSION
	locked = locked & ~BIT(id[d]);
#endif
	id[d] = 0; state[d] = UNARMED; doing[d] = IDLE; session[d] = NO_SESSION;
	rows[d] = 0; below[d] = 0; bury[d] = 0; burial[d] = NO_BURIAL; did[d] = false; knows[d] = 0;
	changed[d] = false; look[d] = false; lost[d] = false;
#ifdef DEAF
	deaf[d] = false;
#endif
#if STOPS > 0 || defined(COUNTED)
	left[d] = false;
#endif
#ifdef HANDOVER
	heard[d] = 0; search[d] = false; reading[d] = 0; since[d] = 0;
#endif
#if DELAYS > 0 || defined(PAUSES)
	unasked[d] = false; missed[d] = 0;
#endif
#ifdef PAUSES
	idle[d] = false; suspended[d] = 0; loaded[d] = 0; reload[d] = false; loading[d] = false; readVersion[d] = 0; readPaused[d] = false; knowing[d] = 0;
#endif
	EACH_EVENT
#ifdef HANDOVER
		excused = (sent[AT(d, e_)] != 0 -> excused | BIT(e_) : excused);
#endif
		held[AT(d, e_)] = 0; sent[AT(d, e_)] = 0; refused[AT(d, e_)] = 0;
#ifdef FLIGHT
		flying[AT(d, e_)] = 0;
#endif
#if AGES > 0
		expired[AT(d, e_)] = 0;
#endif
#ifdef PAUSES
		asked[AT(d, e_)] = 0; answer[AT(d, e_)] = 0;
#endif
#if RELEASES > 0
		unsent[AT(d, e_)] = 0;
#endif
#if ANSWERS > 0
		interrupted[AT(d, e_)] = 0;
#endif
	NEXT_EVENT
}

/* One bit per event. */
#define EVERY(what) (what(0) EVERY1(what) EVERY2(what) EVERY3(what))
#if EVENTS > 1
#define EVERY1(what) | what(1)
#define OWNED1(instance) | OWNED_(1, instance)
#else
#define EVERY1(what)
#define OWNED1(instance)
#endif
#if EVENTS > 2
#define EVERY2(what) | what(2)
#define OWNED2(instance) | OWNED_(2, instance)
#else
#define EVERY2(what)
#define OWNED2(instance)
#endif
#if EVENTS > 3
#define EVERY3(what) | what(3)
#define OWNED3(instance) | OWNED_(3, instance)
#else
#define EVERY3(what)
#define OWNED3(instance)
#endif
#define OWNED_(e, instance) ((by[e] == instance) << e)
#define OWNED(instance) (OWNED_(0, instance) OWNED1(instance) OWNED2(instance) OWNED3(instance))

/* It is in rowhook.instance from now on, seen, with what is true now. */
inline register(d) {
	registered = registered | BIT(id[d]);
	unseen = unseen & ~BIT(id[d]);
	SEE(id[d]);
#if STOPS > 0
	if
	:: session[d] != NO_SESSION -> hears = hears | BIT(id[d])
	:: else -> hears = hears & ~BIT(id[d])
	fi
#else
	skip
#endif
}

inline unregister(i) {
	registered = registered & ~BIT(i);
	unseen = unseen & ~BIT(i);
#ifdef HANDOVER
	/* A database trigger. */
#ifndef HOLDER_STAYS
	if
	:: holder == i -> holder = NOBODY; blocked = false
	:: else
	fi;
#endif
#if defined(COUNTED) && !defined(BURIAL_UNCOUNTED)
	EACH_DISPATCHER
		if
		:: i_ != d && id[i_] != 0 && doing[i_] != STOPPING -> left[i_] = true
		:: else
		fi;
	NEXT_DISPATCHER;
#endif
	EACH_EVENT
#if HANGS > 0
		excused = (by[e_] == i && place[e_] == QUEUE -> excused | BIT(e_) : excused);
#endif
#if defined(OLD) && DISPATCHERS == 2
		late = (by[e_] == i && place[e_] == OPEN -> late | BIT(e_) : late);
#endif
	NEXT_EVENT;
#endif
#if STOPS > 0
	hears = hears & ~BIT(i)
#else
	skip
#endif
}

/* It looks after what an instance that is gone would have: what it gave back, when its retries are due, and writers that are silent. */
inline inherit(d) {
	look[d] = true;
	SEARCHED(d, INHERITED);
	ask_next_due(d);
#ifndef KEEP_BELL
	lost[d] = true
#else
	skip
#endif
}

/* A claim is committed: what it took is the instance's now. */
inline take(e, instance) {
	by[e] = instance;
#ifdef HANDOVER
	claim[e] = (claim[e] == 0 -> 2 : claim[e] + 1); /* 1 is for what is handed over */
#else
	claim[e]++;
#endif
#ifdef PAUSES
	attempts[e]++;
#endif
	assert(claim[e] < 8); /* the sets of claims hold no more */
#ifdef TRIES
	tries[e]++;
	triesOf[e * 8 + claim[e]] = tries[e]
#else
	skip
#endif
}

inline give_back(e) {
	by[e] = 0;
	due = due | BIT(e);
	later = later & ~BIT(e)
}

/* What the dead instance has claimed, as far as that is committed. */
inline give_back_all(d) {
	EACH_EVENT
		if
		:: by[e_] == bury[d] && place[e_] == QUEUE ->
			BACK_UNSEEN(e_);
			give_back(e_);
#if HANGS > 0
			EXCUSE(e_);
#endif
			did[d] = true
		:: else
		fi;
	NEXT_EVENT;
	short_transaction()
}

inline count_down(e) {
#ifdef TRIES
	tries[e]--
#elif defined(PAUSES)
	attempts[e]--
#else
	skip
#endif
}

/* What a dispatcher has claimed and not sent will not be sent. */
inline drop(d) {
	EACH_EVENT
		unsent[AT(d, e_)] = unsent[AT(d, e_)] | held[AT(d, e_)];
		held[AT(d, e_)] = 0;
	NEXT_EVENT
}

#define HELD_(e) ((held[AT(d, e)] != 0) << e)
#define HELD(d) EVERY(HELD_)
#if RELEASES > 0
#define UNSENT_(e) | unsent[AT(d, e)]
#else
#define UNSENT_(e)
#endif
#if ANSWERS > 0
#define INTERRUPTED_(e) | interrupted[AT(d, e)]
#else
#define INTERRUPTED_(e)
#endif
#ifdef FLIGHT
#define FLYING_(e) | flying[AT(d, e)]
#else
#define FLYING_(e)
#endif
#define UNSETTLED_(e) (sent[AT(d, e)] | refused[AT(d, e)] UNSENT_(e) INTERRUPTED_(e) FLYING_(e))
#define UNSETTLED(d) EVERY(UNSETTLED_)

/* Giving back waits for the rows that others have locked. */
#define CAN_RECLAIM ((OWNED(bury[d]) & LOCKS) == 0)

/* To forget an instance waits for its claims that are under way, which have locked its row. */
#ifdef LATE_CLAIM
#define CLAIMS_OF(instance) false
#elif DISPATCHERS == 1
#define CLAIMS_OF(instance) (ghostRows != 0 && ghost == instance)
#elif DISPATCHERS == 2
#define CLAIMS_OF(instance) (ghostRows != 0 && ghost == instance || rows[0] != 0 && id[0] == instance || rows[1] != 0 && id[1] == instance)
#else
#define CLAIMS_OF(instance) (ghostRows != 0 && ghost == instance || rows[0] != 0 && id[0] == instance || rows[1] != 0 && id[1] == instance || rows[2] != 0 && id[2] == instance)
#endif

#ifdef LATE_TWICE
#define NONE_UNDER_WAY(instance) true
#else
#define NONE_UNDER_WAY(instance) (!CLAIMS_OF(instance))
#endif

/* It has said since that it lives, or has registered again. */
#define LIVES(i) (HAS(registered, i) && !HAS(DEAD, i))

/* Dispatchers are alike: where there is one fault it strikes the first. CRASH_BURIED: who crashes was buried before. */
#ifdef CRASH_BURIED
#define MAY_CRASH(d) (!HAS(registered, id[d]))
#else
#define MAY_CRASH(d) true
#endif
#if CRASHES + STOPS + LOSSES + HANGS <= 1 || defined(CRASH_BURIED)
#define MAY_FAIL(d) (d == 0)
#else
#define MAY_FAIL(d) true
#endif
#define IN_TURN(w) (w == 0 || place[(w == 0 -> 0 : w - 1) * WRITES] != NOWHERE)

/* An instance claims and buries others only while it is registered: else nobody would find it dead. */
#ifdef UNREGISTERED
#define MAY_ACT(d) (id[d] != 0)
#else
#define MAY_ACT(d) (id[d] != 0 && HAS(registered, id[d]))
#endif

/* Nor does it ask for silence otherwise. */
#ifdef SILENCE_UNREGISTERED
#define MAY_SILENCE(d) true
#else
#define MAY_SILENCE(d) MAY_ACT(d)
#endif

/* Variant: a claim takes an event before it is due. */
#ifdef DELAY_EARLY
#define CLAIMABLE (due | young)
#else
#define CLAIMABLE due
#endif

/* Who does not listen looks at every watch. */
#ifdef DEAF_WAIT
#define WATCHES(d) false
#else
#define WATCHES(d) (session[d] != LISTENING)
#endif

#ifdef DEAF
#define IS_DEAF(d) deaf[d]
#else
#define IS_DEAF(d) false
#endif

#ifdef NO_FENCE
#define FENCE(e) true
#elif defined(TRIES)
#define FENCE(e) (by[e] == id[d] && tries[e] == triesOf[e * 8 + r_])
#else
#define FENCE(e) (by[e] == id[d] && claim[e] == r_)
#endif

#ifdef UNSENT
#define RECEIVED(e) skip
#elif defined(HANDOVER)
#define RECEIVED(e) \
	assert(!HAS(delivered & ~excused, e)); /* no event is sent twice without a cause */ \
	delivered = delivered | BIT(e)
#else
#define RECEIVED(e) delivered = delivered | BIT(e)
#endif

#define LOWEST(set) r_ = 1; do :: HAS(set, r_) -> break :: else -> r_++ od
#define MINE(e) (by[e] == id[d] && claim[e] == r_)

#if AGES > 0
#define IS_OLD(e) HAS(old, e)
#else
#define IS_OLD(e) false
#endif
#if DELAYS > 0
#define IS_YOUNG(e) HAS(young, e)
#else
#define IS_YOUNG(e) false
#endif
#ifdef PAUSES
#define IS_IDLE(d) idle[d]
#define IS_LOADING(d) loading[d]
#define HEARS_OF_PAUSE(d) (paused && knowing[d] == version + 1)
#else
#define IS_IDLE(d) false
#define IS_LOADING(d) false
#define HEARS_OF_PAUSE(d) false
#endif

/* An attempt, and the settling of its outcome: to the archive, or due again later. */
#ifdef FLIGHT
#define SEND_AND_SETTLE(e) BEGIN(e) LAND(e) SETTLE(e)
#else
#define SEND_AND_SETTLE(e) SEND_AT_ONCE(e) SETTLE(e)
#endif

#ifdef PAUSES
#define NOTE_VERSION(e) asked[AT(d, e)] = loaded[d]
#define IS_GONE gone
#define IS_UNANSWERED(e) (answer[AT(d, e)] == 0)
#else
#define NOTE_VERSION(e) skip
#define IS_GONE false
#define IS_UNANSWERED(e) true
#endif

/* A request begins; an answer comes. */
#define BEGIN(e) \
	:: d_step { held[AT(d, e)] != 0 && !IS_OLD(e) && flying[AT(d, e)] == 0 && IS_UNANSWERED(e) -> \
		LOWEST(held[AT(d, e)]); \
		held[AT(d, e)] = held[AT(d, e)] & ~BIT(r_); \
		WHO; printf("sends event %d\n", e); \
		NOTE_BEGUN(e); \
		assert(place[e] == QUEUE || place[e] == ARCHIVE || place[e] == DEAD_LETTER); \
		assert(place[e] != DEAD_LETTER || CRASHES + HANGS + EXPIRIES > 0); /* none is sent after it has expired */ \
		assert(!HEARS_OF_PAUSE(d)); /* who knows that a trigger is paused begins nothing */ \
		flying[AT(d, e)] = BIT(r_); \
		NOTE_VERSION(e); \
		DONE }
#define LAND(e) \
	:: d_step { flying[AT(d, e)] != 0 && !IS_GONE -> \
		printf("receiver: takes event %d of dispatcher %d\n", e, d); \
		RECEIVED(e); \
		sent[AT(d, e)] = sent[AT(d, e)] | flying[AT(d, e)]; \
		flying[AT(d, e)] = 0; \
		DONE } \
	:: d_step { failures > 0 && flying[AT(d, e)] != 0 -> \
		failures--; \
		printf("receiver: refuses event %d of dispatcher %d\n", e, d); \
		refused[AT(d, e)] = refused[AT(d, e)] | flying[AT(d, e)]; \
		flying[AT(d, e)] = 0; \
		DONE }

#ifdef PAUSE_COUNTED
#define UNCOUNTED(e) skip
#else
#define UNCOUNTED(e) count_down(e)
#endif
#ifdef PAUSE_OVERRULES
#define IS_THAT_TRIGGER(v) true
#else
#define IS_THAT_TRIGGER(v) (version == (v))
#endif

/*
 * An answer of a receiver that is gone. At once the dispatcher claims no more, and gives back what it has not sent. Then it
 * pauses the trigger for everybody, if nobody has resumed or changed it since the request was made, and loads the
 * configuration. The event waits, and its attempt does not count.
 */
#define PAUSE(e) \
	:: d_step { flying[AT(d, e)] != 0 && gone -> \
		printf("receiver: answers event %d of dispatcher %d that it is gone\n", e, d); \
		WHO; printf("claims no more\n"); \
		answer[AT(d, e)] = flying[AT(d, e)]; \
		flying[AT(d, e)] = 0; \
		idle[d] = true; \
		suspended[d] = asked[AT(d, e)] + 1; \
		r_ = e; \
		drop(d); \
		DONE } \
	:: d_step { answer[AT(d, e)] != 0 -> \
		if \
		:: paused -> WHO; printf("finds the trigger paused\n"); knowing[d] = version + 1 \
		:: !paused && IS_THAT_TRIGGER(asked[AT(d, e)]) -> \
			WHO; printf("pauses the trigger\n"); \
			assert(!resumed); /* the operator need not resume it again */ \
			paused = true; \
			version++; \
			knowing[d] = version + 1; \
			tell_reload() \
		:: else -> WHO; printf("finds that the trigger is another one\n") \
		fi; \
		reload[d] = true; \
		unsent[AT(d, e)] = unsent[AT(d, e)] | answer[AT(d, e)]; \
		answer[AT(d, e)] = 0; \
		asked[AT(d, e)] = 0; \
		short_transaction(); \
		DONE }

/* A notification that the configuration has changed. */
inline tell_reload() {
	EACH_DISPATCHER
		if
		:: session[i_] == LISTENING -> reload[i_] = true
		:: else
		fi;
	NEXT_DISPATCHER
}

#if AGES > 0
/* Who has claimed an event that is too old, or finds one that nobody has claimed, gives it up. */
#ifdef EXPIRE_CLAIMED
#define MAY_EXPIRE(e) true
#else
#define MAY_EXPIRE(e) (by[e] == 0 && HAS(due, e))
#endif
#ifdef EXPIRE_UNFENCED
#define EXPIRY_FENCE(e) true
#else
#define EXPIRY_FENCE(e) FENCE(e)
#endif
#define EXPIRE(e) \
	:: d_step { held[AT(d, e)] != 0 && IS_OLD(e) -> \
		WHO; printf("finds that event %d, which it has claimed, is too old\n", e); \
		expired[AT(d, e)] = expired[AT(d, e)] | held[AT(d, e)]; \
		held[AT(d, e)] = 0 } \
	:: d_step { expired[AT(d, e)] != 0 && !HAS(LOCKS, e) -> \
		LOWEST(expired[AT(d, e)]); \
		expired[AT(d, e)] = expired[AT(d, e)] & ~BIT(r_); \
		if \
		:: place[e] == QUEUE && EXPIRY_FENCE(e) -> \
			WHO; printf("gives up event %d\n", e); \
			assert(MINE(e)); \
			to_dead_letters(e); \
			short_transaction() \
		:: else \
		fi; \
		DONE } \
	:: d_step { id[d] != 0 && IS_OLD(e) && place[e] == QUEUE && MAY_EXPIRE(e) && !HAS(LOCKS, e) && !IS_IDLE(d) -> \
		WHO; printf("gives up event %d, which nobody has claimed\n", e); \
		to_dead_letters(e); \
		short_transaction(); \
		DONE }
#endif

#define SEND_AT_ONCE(e) \
	:: d_step { held[AT(d, e)] != 0 -> \
		LOWEST(held[AT(d, e)]); \
		held[AT(d, e)] = held[AT(d, e)] & ~BIT(r_); \
		WHO; printf("sends event %d\n", e); \
		NOTE_BEGUN(e); \
		assert(place[e] == QUEUE || place[e] == ARCHIVE); \
		assert(!IS_YOUNG(e)); /* none is sent before its delay has passed */ \
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
		DONE }
#define SETTLE(e) \
	:: d_step { sent[AT(d, e)] != 0 && !HAS(LOCKS, e) -> \
		LOWEST(sent[AT(d, e)]); \
		sent[AT(d, e)] = sent[AT(d, e)] & ~BIT(r_); \
		NOTE_SETTLED(e); \
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
		NOTE_SETTLED(e); \
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

/* A claimed event that will not be sent is given back, and counts as not claimed. */
#ifdef NO_RELEASES
#define MAY_RELEASE false
#else
#define MAY_RELEASE (releases > 0)
#endif
#define RELEASE(e) \
	:: d_step { MAY_RELEASE && held[AT(d, e)] != 0 -> \
		releases--; \
		WHO; printf("will not send event %d\n", e); \
		LOWEST(held[AT(d, e)]); \
		held[AT(d, e)] = held[AT(d, e)] & ~BIT(r_); \
		unsent[AT(d, e)] = unsent[AT(d, e)] | BIT(r_); \
		DONE } \
	:: d_step { unsent[AT(d, e)] != 0 && !HAS(LOCKS, e) -> \
		LOWEST(unsent[AT(d, e)]); \
		unsent[AT(d, e)] = unsent[AT(d, e)] & ~BIT(r_); \
		NOTE_SETTLED(e); \
		RELEASED(e, "gives back event %d\n") }

/* What was handed over and is given back: writers hand no more of it to this instance for now, and the others are told. */
#ifdef HANDOVER
#ifdef UNTOLD
#define ONWARD blocked = blocked || IS_HANDED(r_) && holder == id[d]
#else
#define ONWARD \
	blocked = blocked || IS_HANDED(r_) && holder == id[d]; \
	if \
	:: IS_HANDED(r_) -> ring() \
	:: else \
	fi
#endif
#else
#define ONWARD skip
#endif
#define RELEASED(e, words) \
		if \
		:: place[e] == QUEUE && FENCE(e) -> \
			WHO; printf(words, e); \
			assert(MINE(e)); \
			give_back(e); \
			UNCOUNTED(e); \
			look[d] = true; \
			ONWARD; \
			short_transaction() \
		:: else \
		fi; \
		DONE

#ifdef DISOWN_ALL
#define DISOWN_OTHERS \
	EACH_EVENT \
		if \
		:: place[e_] == QUEUE && by[e_] == id[d] -> WHO; printf("disowns event %d, too\n", e_); give_back(e_) \
		:: else \
		fi; \
	NEXT_EVENT; \
	look[d] = true
#else
#define DISOWN_OTHERS skip
#endif
/* A settle whose answer gets lost is made again, and may come late. A claim whose answer gets lost is given back. */
#define LOSE_ANSWER(e) \
	:: d_step { answers > 0 && unsent[AT(d, e)] != 0 && !HAS(LOCKS, e) -> \
		answers--; \
		LOWEST(unsent[AT(d, e)]); \
		RELEASED(e, "gives back event %d, and does not hear so\n") } \
	:: d_step { interrupted[AT(d, e)] != 0 && !HAS(LOCKS, e) -> \
		LOWEST(interrupted[AT(d, e)]); \
		interrupted[AT(d, e)] = interrupted[AT(d, e)] & ~BIT(r_); \
		DISOWN_OTHERS; \
		if \
		:: place[e] == QUEUE && MINE(e) -> \
			WHO; printf("disowns event %d\n", e); \
			give_back(e); \
			count_down(e); \
			look[d] = true; \
			short_transaction() \
		:: else \
		fi; \
		DONE }

/* A burial at one go. It gives back what the dead instance had, forgets it, and inherits. */
#define BURY(i) \
	:: d_step { HAS(DEAD, i) && MAY_ACT(d) && id[d] != i && doing[d] != STOPPING && (OWNED(i) & LOCKS) == 0 && !CLAIMS_OF(i) -> \
		bury[d] = i; \
		printf("dispatcher %d, instance %d: buries instance %d, and inherits\n", d, id[d], i); \
		give_back_all(d); \
		unregister(i); \
		bury[d] = 0; did[d] = false; \
		inherit(d); \
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
		EXCUSE(e); \
		ripen(e); \
		DONE }

/* Whoever looks for events that were recorded may look too early for those with a delay: they have to be asked for. */
#if DELAYS > 0 && !defined(DELAY_RUNG)
#define RUNG(d) unasked[d] = true
#else
#define RUNG(d) skip
#endif
#if DELAYS > 0 && !defined(DELAY_CHECKED)
#define CHECKED(d) unasked[d] = true
#else
#define CHECKED(d) skip
#endif

#ifdef UNREGISTERED_READ
#define MAY_READ(d) true
#elif defined(TAKE_UNSEEN)
#define MAY_READ(d) MAY_ACT(d)
#else
#define MAY_READ(d) (MAY_ACT(d) && !HAS(unseen, id[d]))
#endif
#ifdef OVERDUE_IGNORED
#define OVERDUE(d) skip
#else
#define OVERDUE(d) look[d] = true
#endif
#ifdef HOLDER_UNLOCKED
#define MAY_HOLD(d) true
#else
#define MAY_HOLD(d) MAY_ACT(d)
#endif

#ifdef HANDOVER
/* A notification to everybody who listens. */
inline ring() {
	EACH_DISPATCHER
		if
		:: session[i_] == LISTENING -> look[i_] = true; RUNG(i_)
		:: else
		fi;
	NEXT_DISPATCHER
}

/* A notification to the one that the event was handed to. */
inline announce(e) {
	EACH_DISPATCHER
		if
		:: by[e] != 0 && id[i_] == by[e] && session[i_] == LISTENING && doing[i_] != STOPPING -> heard[i_] = heard[i_] | BIT(e)
		:: else
		fi;
	NEXT_DISPATCHER
}

/* What was handed to an instance and is not due is claimed already. What is due is to be claimed, by whoever does. */
inline read_handed(d) {
	EACH_EVENT
		if
		:: (HAS(heard[d], e_) || search[d] || heard[d] == 0) && HANDED_TO(e_, id[d]) && MAY_READ(d) ->
			if
			:: HAS(due, e_) -> OVERDUE(d)
			:: else -> r_ = r_ | BIT(e_)
			fi
		:: else
		fi;
	NEXT_EVENT;
	reading[d] = r_; r_ = 0
}

/* What was handed to an instance that is gone. */
inline give_back_handed(d) {
	EACH_EVENT
		if
		:: HANDED_TO_NOBODY(e_) ->
			WHO; printf("gives back event %d, which was handed to instance %d\n", e_, by[e_]);
			BACK_UNSENT(e_);
			give_back(e_);
			count_down(e_);
			look[d] = true;
			r_ = 1
		:: else
		fi;
	NEXT_EVENT;
	if
	:: r_ != 0 -> r_ = 0; ring()
	:: else
	fi;
	short_transaction()
}
#endif
#define AGE(e) \
	:: d_step { ages > 0 && place[e] == QUEUE && !IS_YOUNG(e) && !HAS(old, e) -> \
		ages--; \
		printf("world: event %d is too old\n", e); \
		old = old | BIT(e) }

proctype writer(byte w) {
	byte e;
	bool quiet;
#if defined(HANDOVER) && defined(READ_FIRST)
	byte to;
#else
#define to holder
#endif
	e = w * WRITES;
	IN_TURN(w); /* writers are alike: they begin in the order of their numbers */
	do
	:: e < (w + 1) * WRITES ->
#ifdef HANDOVER
#ifdef READ_FIRST
		d_step { quiet = bell != RING; to = holder; printf("writer %d: reads the bell (%d), and to whom to hand over (%d)\n", w, bell, holder) };
#endif
		d_step {
			printf("writer %d: takes a transaction id for event %d\n", w, e);
			place[e] = OPEN;
			open = open | BIT(e)
		};
#ifndef READ_FIRST
		d_step { quiet = bell != RING; printf("writer %d: reads the bell (%d)\n", w, bell) };
#endif
		d_step {
			if
			:: !quiet && to != NOBODY && !blocked ->
				printf("writer %d: hands event %d over to instance %d\n", w, e, to);
				EACH_DISPATCHER
					assert(id[i_] != to || doing[i_] != STOPPING); /* who stops is handed nothing */
				NEXT_DISPATCHER;
				by[e] = to; claim[e] = 1;
				HAND_BLIND(e);
#ifdef PAUSES
				attempts[e] = 1;
#endif
#ifdef TRIES
				tries[e] = 1; triesOf[e * 8 + 1] = 1
#endif
			:: else -> printf("writer %d: inserts event %d\n", w, e)
			fi;
			DONE };
		if
#ifdef SECOND_LOOK
		:: d_step { true ->
#else
		:: d_step { by[e] == 0 ->
#endif
			quiet = bell != RING; printf("writer %d: reads the bell (%d)\n", w, bell) }
		:: else
		fi;
#else
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
#endif
		if
		:: d_step { /* commit */
			printf("writer %d: commits event %d, quiet %d\n", w, e, quiet);
			place[e] = QUEUE;
#if DELAYS > 0
			if
			:: e < DELAYS -> later = later | BIT(e); young = young | BIT(e)
			:: else -> due = due | BIT(e)
			fi;
#elif defined(HANDOVER)
			due = (by[e] == 0 -> due | BIT(e) : due);
#else
			due = due | BIT(e);
#endif
			end_transaction(e);
			if
#ifdef HANDOVER
			:: !quiet && by[e] != 0 ->
#ifdef UNANNOUNCED
				skip
#else
				announce(e)
#endif
			:: !quiet && by[e] == 0 ->
#else
			:: !quiet ->
#endif
				EACH_DISPATCHER
					if
					:: session[i_] == LISTENING -> look[i_] = true; RUNG(i_)
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
#ifdef HANDOVER
			by[e] = 0; claim[e] = 0;
#ifdef PAUSES
			attempts[e] = 0;
#endif
#endif
			end_transaction(e);
			quiet = false;
			DONE }
		fi;
		e++
	:: else -> break
	od
}

#ifdef LOCKS_COUNT
#define LOSE_LOCK locked = locked & ~BIT(id[d])
#else
#define LOSE_LOCK skip
#endif
#define LOSE_SESSION \
	LOSE_LOCK; \
	if \
	:: session[d] == LISTENING && doing[d] != STOPPING -> lost[d] = true \
	:: else \
	fi; \
	session[d] = NO_SESSION

#ifdef STAY_SILENT
#define MAY_WAKE(d) false
#else
#define MAY_WAKE(d) (state[d] == SILENT)
#endif
#ifdef UNABLE
#define MAY_RETIRE(d) (d == 0)
#else
#define MAY_RETIRE(d) true
#endif

proctype dispatcher(byte d) {
end:
	do
	/* ---- the process ---- */
	:: d_step { id[d] == 0 && !HAS(retired, d) ->
		id[d] = nextId; nextId++;
		WHO; printf("starts\n");
#if !defined(UNREGISTERED) && !defined(LIVE_BY_SESSION)
		register(d);
#endif
#ifdef PAUSES
		idle[d] = paused; loaded[d] = version; knowing[d] = (paused -> version + 1 : 0);
#endif
#if DELAYS > 0 || defined(PAUSES)
		unasked[d] = true;
#endif
		look[d] = true }
	:: d_step { id[d] == 0 && !HAS(retired, d) && (retired | BIT(d)) != BIT(DISPATCHERS) - 1 && MAY_RETIRE(d) ->
		WHO; printf("does not come back\n");
		retired = retired | BIT(d) } /* one of them does */
	:: d_step { MAY_FAIL(d) && MAY_CRASH(d) && crashes > 0 && id[d] != 0 && doing[d] != CLAIMING ->
		crashes--;
		WHO; printf("crashes\n");
		forget(d);
		DONE }
	:: d_step { MAY_FAIL(d) && MAY_CRASH(d) && crashes > 0 && doing[d] == CLAIMING && ghostRows == 0 -> /* its server process goes on for a while */
		crashes--;
		WHO; printf("crashes, its claim goes on\n");
		ghost = id[d]; ghostRows = rows[d];
		forget(d);
		DONE }
	:: d_step { MAY_FAIL(d) && hangs > 0 && id[d] != 0 && HAS(registered & ~unseen, id[d]) ->
		hangs--;
		WHO; printf("can't show that it lives\n");
		unseen = unseen | BIT(id[d]) }
#if STOPS > 0
	:: d_step { MAY_FAIL(d) && stops > 0 && id[d] != 0 && doing[d] == IDLE && (HELD(d) & LOCKS) == 0 ->
		stops--;
		WHO; printf("stops, giving back what it has not sent\n");
		EACH_EVENT
			if
			:: by[e_] == id[d] && HAS(held[AT(d, e_)], claim[e_]) -> give_back(e_) /* released */
			:: else
			fi;
			held[AT(d, e_)] = 0;
		NEXT_EVENT;
		if
		:: state[d] == SILENT || state[d] == UNARMED -> bell = RING
		:: else
		fi;
		doing[d] = STOPPING;
		bury[d] = 0; burial[d] = NO_BURIAL; did[d] = false; /* in the middle of it */
#ifdef HANDOVER
#ifndef STOP_KEEPS
		if
		:: holder == id[d] -> holder = NOBODY; blocked = false
		:: else
		fi;
#endif
		heard[d] = 0; search[d] = false; reading[d] = 0; since[d] = 0;
#endif
		state[d] = UNARMED; below[d] = 0; changed[d] = false; look[d] = false; lost[d] = false; left[d] = false;
		DONE }
	:: d_step { doing[d] == STOPPING && UNSETTLED(d) == 0 ->
		WHO; printf("unregisters\n");
#if defined(HANDOVER) && !defined(STOP_SILENTLY)
		if
		:: IS_NEW(d) ->
			EACH_EVENT
				if
				:: HANDED_TO(e_, id[d]) && !HAS(LOCKS, e_) -> WHO; printf("gives back event %d, which was handed to it\n", e_); give_back(e_); count_down(e_)
				:: else
				fi;
			NEXT_EVENT
		:: else
		fi;
#endif
		unregister(id[d]);
		EACH_DISPATCHER
#ifndef LEAVE
			if
			:: i_ != d && id[i_] != 0 && doing[i_] != STOPPING -> left[i_] = true
			:: else
			fi;
#endif
		NEXT_DISPATCHER;
		if
		:: hears == 0 -> bell = id[d]; printf("dispatcher %d, instance %d: it was the last one that listened\n", d, id[d])
		:: else
		fi;
		forget(d);
		DONE }
#endif
#if STOPS > 0 || defined(COUNTED)
	:: d_step { left[d] ->
		WHO; printf("notices that another one has stopped\n");
		left[d] = false;
		inherit(d);
		DONE }
#endif

	/* ---- pulse ---- */
#ifndef LIVE_BY_SESSION
	:: d_step { id[d] != 0 && HAS(unseen, id[d]) ->
		WHO; printf("shows again that it lives\n");
		register(d);
		SEARCHED(d, SEEN) }
#if STOPS > 0
	:: d_step { id[d] != 0 && HAS(registered, id[d]) && HAS(hears, id[d]) != (session[d] != NO_SESSION) ->
		WHO; printf("says whether it listens\n");
		register(d) }
#endif
#endif
#if defined(LIVE_BY_SESSION) || defined(UNREGISTERED)
	:: d_step { session[d] == LISTENING && !HAS(registered, id[d]) ->
#else
	:: d_step { id[d] != 0 && !HAS(registered, id[d]) ->
#endif
		WHO; printf("registers again\n");
		register(d);
#ifndef QUIET_RETURN
		if
		:: doing[d] != STOPPING -> inherit(d)
		:: else
		fi;
#endif
		DONE }

	/* ---- listener ---- */
	:: d_step { id[d] != 0 && session[d] == NO_SESSION && !IS_DEAF(d) ->
		WHO; printf("takes its lock, and says so\n");
		session[d] = PREPARED;
#ifdef LOCKS_COUNT
		locked = locked | BIT(id[d]);
#endif
		if
		:: !HAS(registered, id[d]) && doing[d] != STOPPING -> inherit(d)
		:: else
		fi;
		register(d);
		DONE }
	:: d_step { session[d] == PREPARED ->
		WHO; printf("listens\n");
		session[d] = LISTENING;
		if
		:: doing[d] != STOPPING -> lost[d] = true; look[d] = true
		:: else
		fi }
	:: d_step { MAY_FAIL(d) && losses > 0 && session[d] != NO_SESSION ->
		losses--;
		WHO; printf("loses its session and its lock\n");
		LOSE_SESSION }
#ifdef DEAF
	:: d_step { MAY_FAIL(d) && losses > 0 && id[d] != 0 && !deaf[d] ->
		losses--;
		WHO; printf("can't listen any more\n");
		deaf[d] = true;
		LOSE_SESSION }
#endif

	/* ---- claimer: doorbell ---- */
	:: d_step { lost[d] && doing[d] == IDLE ->
		lost[d] = false;
		if
		:: state[d] == SILENT -> WHO; printf("sets the bell to ring\n"); bell = RING
		:: else
		fi;
		state[d] = UNARMED; below[d] = 0; changed[d] = false }
#ifdef ARM_LAST
	:: d_step { session[d] == LISTENING && doing[d] == IDLE && !lost[d] && !look[d] && (state[d] == UNARMED || state[d] == SILENT) ->
		WHO; printf("arms the bell and sleeps\n");
		bell = RING;
		state[d] = RINGING }
#else
	:: d_step { session[d] == LISTENING && doing[d] == IDLE && !lost[d] && (state[d] == UNARMED || MAY_WAKE(d)) ->
#ifdef ID_FIRST
		WHO; printf("takes a horizon\n");
		below[d] = open;
#else
		WHO; printf("arms the bell\n");
		bell = RING;
#endif
#ifdef HANDOVER
		if
		:: IS_NEW(d) && MAY_HOLD(d) -> holder = id[d]; blocked = false
#ifdef OLD_READS
		:: !IS_NEW(d) -> holder = NOBODY
#endif
		:: else
		fi;
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
		state[d] = ARMING; changed[d] = true; look[d] = true; CHECKED(d);
		SEARCHED(d, ARMED);
		doing[d] = IDLE }
#endif
	:: d_step { session[d] == LISTENING && doing[d] == IDLE && !lost[d] && state[d] == ARMING && changed[d] ->
		changed[d] = false; look[d] = true; CHECKED(d);
		SEARCHED(d, CHECK);
#if defined(UNABLE) && !defined(UNCALLED)
		if
		:: IS_UNABLE(d) -> ring()
		:: else
		fi;
#endif
		if
		:: below[d] == 0 -> WHO; printf("finds nothing open below its horizon: it may sleep\n"); state[d] = RINGING
		:: else -> WHO; printf("finds transactions open below its horizon\n")
		fi }
	:: d_step { silences > 0 && session[d] == LISTENING && doing[d] == IDLE && !lost[d] && state[d] != UNARMED && MAY_SILENCE(d) ->
		silences--;
		WHO; printf("asks for silence\n");
		bell = id[d];
		state[d] = SILENT; below[d] = 0; changed[d] = false }

	/* ---- claimer: claim ---- */
	:: d_step { doing[d] == IDLE && id[d] != 0 && look[d] && !MAY_ACT(d) ->
		WHO; printf("looks, is not registered and gets nothing\n");
		look[d] = false }
#ifdef PAUSES
	:: d_step { doing[d] == IDLE && idle[d] && look[d] ->
		look[d] = false }
#endif
#ifdef UNABLE
	:: d_step { IS_UNABLE(d) && look[d] ->
		look[d] = false }
#endif
	:: d_step { doing[d] == IDLE && MAY_ACT(d) && !IS_IDLE(d) && !IS_UNABLE(d) && !IS_LOADING(d) && (look[d] || (state[d] == SILENT && !lost[d] || WATCHES(d)) && (CLAIMABLE & ~LOCKS) != 0) ->
		look[d] = false;
#if DELAYS > 0 || defined(PAUSES)
		missed[d] = 0;
#endif
		rows[d] = CLAIMABLE & ~LOCKS;
		if
		:: rows[d] != 0 -> WHO; printf("claims\n"); doing[d] = CLAIMING
		:: else -> WHO; printf("looks and finds nothing\n")
		fi }
	:: d_step { doing[d] == CLAIMING ->
		WHO; printf("has its claim committed\n");
		EACH_EVENT
			if
			:: HAS(rows[d], e_) ->
				take(e_, id[d]);
				held[AT(d, e_)] = held[AT(d, e_)] | BIT(claim[e_])
			:: else
			fi;
		NEXT_EVENT;
#if defined(PAUSES) && !defined(PAUSE_CLAIMED)
		if
		:: idle[d] -> drop(d) /* since the claim was begun */
		:: else
		fi;
#endif
		due = due & ~rows[d];
		rows[d] = 0;
		short_transaction();
		doing[d] = IDLE;
		DONE }
#if ANSWERS > 0
	:: d_step { answers > 0 && doing[d] == CLAIMING ->
		answers--;
		WHO; printf("has its claim committed, and does not hear so\n");
		EACH_EVENT
			if
			:: HAS(rows[d], e_) ->
				take(e_, id[d]);
				interrupted[AT(d, e_)] = interrupted[AT(d, e_)] | BIT(claim[e_])
			:: else
			fi;
		NEXT_EVENT;
		due = due & ~rows[d];
		rows[d] = 0;
		short_transaction();
		doing[d] = IDLE;
		look[d] = true;
		DONE }
#endif

#if DELAYS > 0 || defined(PAUSES)
	/* The lane is drained. What has become due since it last looked counts, too. */
	:: d_step { doing[d] == IDLE && id[d] != 0 && unasked[d] && !look[d] && !IS_IDLE(d) ->
		WHO; printf("asks what is due next\n");
		unasked[d] = false;
		ask_next_due(d);
#ifndef DELAY_FORWARD
		if
		:: (missed[d] & due) != 0 -> look[d] = true
		:: else
		fi;
#endif
		missed[d] = 0;
		DONE }
#endif

#ifdef PAUSES
	/* ---- claimer: configuration ---- */
	:: d_step { doing[d] == IDLE && reload[d] && !loading[d] && id[d] != 0 ->
		WHO; printf("reads the configuration: version %d, paused %d\n", version, paused);
		reload[d] = false;
		loading[d] = true; readVersion[d] = version; readPaused[d] = paused }
	:: d_step { doing[d] == IDLE && loading[d] ->
		WHO; printf("takes the configuration over\n");
		r_ = idle[d];
#ifdef PAUSE_STALE
		suspended[d] = 0;
#else
		suspended[d] = (suspended[d] == readVersion[d] + 1 -> suspended[d] : 0);
#endif
		idle[d] = readPaused[d] || suspended[d] != 0;
		knowing[d] = (readPaused[d] -> readVersion[d] + 1 : knowing[d]);
		loaded[d] = readVersion[d];
		loading[d] = false; readVersion[d] = 0; readPaused[d] = false;
		if
		:: idle[d] -> drop(d)
#ifndef PAUSE_UNMARKED
		:: !idle[d] && r_ != 0 -> look[d] = true; unasked[d] = true
#endif
		:: else
		fi;
		DONE }
#ifndef PAUSE_UNWATCHED
	:: d_step { id[d] != 0 && loaded[d] != version && !reload[d] && !loading[d] ->
		WHO; printf("sees that the configuration has changed\n");
		reload[d] = true }
#endif
#endif

#ifdef HANDOVER
	/* ---- what was handed over ---- */
	:: d_step { id[d] != 0 && IS_NEW(d) && doing[d] != STOPPING && reading[d] == 0 && SEARCHING(d) ->
		WHO; printf("looks for what was handed over (announced: %d, by the index: %d)\n", heard[d], search[d] || heard[d] == 0);
		read_handed(d);
		if
		:: MAY_ACT(d) && (search[d] || heard[d] == 0) -> give_back_handed(d)
		:: else
		fi;
		heard[d] = 0; search[d] = false;
		DONE }
	:: d_step { reading[d] != 0 ->
		EACH_EVENT
			if
			:: HAS(reading[d], e_) && MAY_TAKE(d, e_) ->
				WHO; printf("takes event %d, which was handed over\n", e_);
#ifdef UNABLE
				if
				:: IS_UNABLE(d) -> unsent[AT(d, e_)] = unsent[AT(d, e_)] | BIT(1)
				:: else -> held[AT(d, e_)] = held[AT(d, e_)] | BIT(1)
				fi
#else
				held[AT(d, e_)] = held[AT(d, e_)] | BIT(1)
#endif
			:: else
			fi;
		NEXT_EVENT;
		reading[d] = 0; since[d] = 0;
#if defined(PAUSES) && !defined(TAKE_PAUSED)
		if
		:: idle[d] -> drop(d)
		:: else
		fi;
#endif
		DONE }
#if ANSWERS > 0
	:: d_step { answers > 0 && reading[d] != 0 ->
		answers--;
		WHO; printf("does not hear what was handed over\n");
		reading[d] = 0; since[d] = 0;
		SEARCHED(d, FAILED) }
#endif
	:: d_step { IS_NEW(d) && MAY_HOLD(d) && bell == RING && session[d] == LISTENING && (state[d] == RINGING || state[d] == ARMING) && holder != id[d] && (holder == NOBODY || !HAS(registered, holder) || HAS(unseen, holder)) ->
		WHO; printf("takes the hand-over from instance %d\n", holder);
		holder = id[d]; blocked = false }
#if RELEASES > 0
	:: d_step { blocked && holder == id[d] && !IS_UNABLE(d) && !IS_IDLE(d) ->
		WHO; printf("takes events of the trigger again\n");
		blocked = false }
#endif
#endif

	/* ---- peers ---- */
#ifndef NO_WATCH
#ifdef OLD_READS
	:: d_step { !IS_NEW(d) && id[d] != 0 && bell == RING && holder != NOBODY && state[d] != UNARMED && !lost[d] && doing[d] == IDLE ->
		WHO; printf("takes it for silence that nobody keeps\n");
		lost[d] = true }
#endif
	:: d_step { id[d] != 0 && bell != RING && state[d] != UNARMED && !lost[d] && (bell == id[d] && state[d] != SILENT && doing[d] == IDLE || bell != id[d] && !IS_ALIVE(bell)) ->
		WHO; printf("sees silence that nobody keeps\n");
		lost[d] = true }
#ifndef STEPWISE
	BURY(2)
	BURY(3)
	BURY(4)
	BURY(5)
	BURY(6)
#else
	:: d_step { MAY_ACT(d) && doing[d] != STOPPING && burial[d] == NO_BURIAL && (DEAD & ~BIT(id[d])) != 0 ->
		i_ = 2;
		do
		:: i_ == id[d] || !HAS(DEAD, i_) -> i_++
		:: else -> break
		od;
		bury[d] = i_; burial[d] = FOUND;
		printf("dispatcher %d, instance %d: finds instance %d dead\n", d, id[d], i_);
		DONE }
	:: d_step { burial[d] == FOUND && CAN_RECLAIM && (LIVES(bury[d]) || NONE_UNDER_WAY(bury[d])) ->
		if
		:: LIVES(bury[d]) -> printf("dispatcher %d, instance %d: finds that instance %d lives\n", d, id[d], bury[d]); bury[d] = 0; burial[d] = NO_BURIAL
		:: else ->
			printf("dispatcher %d, instance %d: gives back what instance %d had\n", d, id[d], bury[d]);
			give_back_all(d);
			burial[d] = GIVEN_BACK
		fi;
		DONE }
	:: d_step { burial[d] == GIVEN_BACK && !CLAIMS_OF(bury[d]) ->
		if
		:: HAS(DEAD, bury[d]) ->
			printf("dispatcher %d, instance %d: forgets instance %d\n", d, id[d], bury[d]);
			unregister(bury[d]);
			did[d] = true
		:: else
		fi;
		short_transaction();
		burial[d] = FORGOTTEN;
		DONE }
	:: d_step { burial[d] == FORGOTTEN && CAN_RECLAIM ->
		if
		:: LIVES(bury[d])
		:: else -> give_back_all(d)
		fi;
		bury[d] = 0; burial[d] = NO_BURIAL;
		if
		:: did[d] -> WHO; printf("inherits\n"); did[d] = false; inherit(d)
		:: else
		fi;
		DONE }
#endif
#endif

	/* ---- senders and settler ---- */
	SEND_AND_SETTLE(0)
#if RELEASES > 0
	RELEASE(0)
#endif
#ifdef PAUSES
	PAUSE(0)
#endif
#if AGES > 0
	EXPIRE(0)
#endif
#if ANSWERS > 0
	LOSE_ANSWER(0) /* where there is one event */
#endif
#if EVENTS > 1
	SEND_AND_SETTLE(1)
#if defined(PAUSES) || defined(HANDOVER) && RELEASES > 0
	RELEASE(1)
#endif
#ifdef PAUSES
	PAUSE(1)
#endif
#if defined(HANDOVER) && ANSWERS > 0
	LOSE_ANSWER(1)
#endif
#if AGES > 0
	EXPIRE(1)
#endif
#endif
#if EVENTS > 2
	SEND_AND_SETTLE(2)
#endif
#if EVENTS > 3
	SEND_AND_SETTLE(3)
#endif
	od
}

#define FORGE(d, e) \
	:: d_step { forgeries > 0 && session[d] == LISTENING && IS_NEW(d) && doing[d] != STOPPING && place[e] >= QUEUE -> \
		forgeries--; \
		printf("world: somebody announces event %d to dispatcher %d\n", e, d); \
		heard[d] = heard[d] | BIT(e) }

/* What happens by itself. */
proctype world() {
	byte e;
end:
	do
	:: d_step { silences + crashes + stops + losses + hangs + releases + answers + commands + expiries + failures > 0 -> /* from here on nothing disturbs */
		silences = 0; crashes = 0; stops = 0; losses = 0; hangs = 0; releases = 0; answers = 0; commands = 0; expiries = 0; failures = 0 }
#if FORGERIES > 0
	FORGE(0, 0)
#if EVENTS > 1
	FORGE(0, 1)
#endif
#if DISPATCHERS > 1
	FORGE(1, 0)
#endif
	:: d_step { forgeries > 0 -> forgeries = 0 }
#endif
	:: d_step { commands > 0 && bell == RING ->
		commands--;
		printf("world: someone has seen nobody listen, and silences the bell\n");
		bell = NOBODY }
	:: d_step { ghostRows != 0 -> /* the server process that a killed dispatcher left commits */
		printf("world: the claim that instance %d left behind commits\n", ghost);
		EACH_EVENT
			if
			:: HAS(ghostRows, e_) -> take(e_, ghost)
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
#ifdef PAUSES
	:: d_step { reloads > 0 ->
		reloads--;
		printf("world: somebody has the configuration loaded\n");
		tell_reload();
		DONE }
	:: d_step { gone ->
		printf("operator: makes good what was wrong with the receiver\n");
		gone = false }
	:: d_step { !gone && paused ->
		printf("operator: resumes the trigger\n");
		resumed = true;
		paused = false;
		version++;
		tell_reload();
		short_transaction();
		DONE }
#endif
#if AGES > 0
	AGE(0)
#if EVENTS > 1
	AGE(1)
#endif
#endif
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

/* Where nothing moves any more, every transaction is over, every committed event was delivered, and who runs is registered. */
proctype monitor() {
	byte e;
	timeout -> d_step {
		do
		:: e < EVENTS ->
			if
			:: place[e] == QUEUE -> printf("monitor: nothing moves any more, and event %d was not delivered\n", e)
			:: else
			fi;
#if defined(HANDOVER) && defined(OLD) && DISPATCHERS == 2
			/* Where only a program of the version before runs, what was handed over and committed later waits for its lease. */
			assert(place[e] == ARCHIVE || place[e] == ROLLED_BACK || place[e] == DEAD_LETTER || HAS(late, e) && id[0] == 0);
#else
			assert(place[e] == ARCHIVE || place[e] == ROLLED_BACK || place[e] == DEAD_LETTER);
#endif
			e++
		:: else -> break
		od;
#ifndef NO_ROLL_CALL
		e = 0;
		do
		:: e < DISPATCHERS ->
			if
			:: id[e] != 0 && !HAS(registered, id[e]) -> printf("monitor: nothing moves any more, and instance %d runs and is not registered\n", id[e])
			:: else
			fi;
			assert(id[e] == 0 || HAS(registered, id[e]));
			e++
		:: else -> break
		od
#endif
	}
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
			registered = registered | BIT(nextId);
#if STOPS > 0
			hears = hears | BIT(nextId);
#endif
#ifdef LOCKS_COUNT
			locked = locked | BIT(nextId);
#endif
			nextId++;
			session[n] = LISTENING;
			state[n] = RINGING;
#ifdef HANDOVER
			holder = 2;
#endif
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
