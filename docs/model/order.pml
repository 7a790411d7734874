/*
 * The order of events per key: lanes with an owner, the cursor, late commits, the settlement and keys that move.
 * README.md says what is modelled and what is not. scripts/model runs it.
 *
 * Every step that can't fail halfway is one d_step: a statement as Postgres sees it, or what a dispatcher notes by itself.
 * Reads that would find nothing are left out, so every run ends, and what would wait for ever shows as a run that ends
 * with an event still in the queue.
 */

#ifndef EVENTS
#define EVENTS 3        /* transactions of writers, one event each */
#endif
#ifndef LANES
#define LANES 1         /* 1: both keys are in it; 2: each has its own */
#endif
#ifndef ROLLBACKS
#define ROLLBACKS 1     /* transactions that may roll back */
#endif
#ifndef MOVES
#define MOVES 0         /* events that change their key */
#endif
#ifndef CRASHES
#define CRASHES 0       /* kill -9 at any point */
#endif
#ifndef HANGS
#define HANGS 0         /* instances that can't show for long that they live, and do */
#endif
#ifndef RELEASES
#define RELEASES 0      /* lanes that are given back in order */
#endif
#ifndef ANSWERS
#define ANSWERS 0       /* claims and settlements that commit, and whose answers get lost */
#endif
#ifndef FAILURES
#define FAILURES 0      /* attempts that the receiver refuses, to be retried */
#endif
#ifndef AGES
#define AGES 0          /* events that get too old to be sent */
#endif

/*
 * POISON: event 0 kills whoever sends it, and who was killed starts again as another instance. From DEADLY owners on that
 * have died with a lane, attempts are counted before they are made. An event whose attempts were interrupted LIMIT times is
 * given up. The program has 2 for DEADLY, and gives an event one more attempt, alone.
 */
#ifndef DEADLY
#define DEADLY 1
#endif
#ifndef LIMIT
#define LIMIT 1
#endif

/*
 * Whose order is promised. By default the key is a row, and its lock makes the later writer wait. With SPANS a key has
 * several rows, and its writers do not wait. With STRICT, too, and the order is that of the sequence none the less.
 */
#ifdef STRICT
#define SPANS
#endif

#ifndef NOTES           /* pairs of a number and a transaction id that a dispatcher notes */
#ifdef STRICT
#define NOTES EVENTS    /* events wait for them */
#else
#define NOTES 1
#endif
#endif

/* A snapshot's xmax counts only in variants that believe in it. */
#ifdef STRICT_XMAX
#define XMAX
#endif
#if defined(XMAX) || defined(LISTED_ONLY)
#define NEEDS_XMAX
#endif

#define DISPATCHERS 2
#define KEYS 2
#define NO_KEY 2
#define BIT(x) (1 << (x))
#define HAS(set, x) (((set) >> (x)) & 1)
#define ALL (BIT(EVENTS) - 1)

/* Where an event is. A transaction takes its id, and draws a number later. */
#define NOWHERE 0
#define BEGUN 1         /* its transaction has an id */
#define DRAWN 2         /* the event has a number, and is not committed */
#define LOG 3           /* committed, in event_log */
#define GONE 4          /* settled */
#define ROLLED_BACK 5

/* The request of an event. */
#define NONE 0
#define FLYING 1
#define DELIVERED 2     /* answered; the settlement is to come */
#define REFUSED 3
#define COUNTED 4       /* it is about to begin */

/* How far a read is. */
#define RESTING 0
#define LATE 1          /* the rows after the cursor are there; those of late commits have to be read */
#define ANSWERED 2      /* the late read has its snapshot; its answer has not come */

/*
 * The database. Transactions have ids in the order of their numbers, which are those of their events. Sets of events or
 * transactions, and of instances, are bit masks.
 */
byte place[EVENTS];
byte key[EVENTS];       /* the new key of an event that moves */
byte old[EVENTS];       /* its old key, or NO_KEY */
byte seq[EVENTS];
byte drawn;             /* the sequence's last value */
byte begun;             /* transaction ids that were given out */
byte ended;             /* transactions that are over: what a snapshot shows */
byte later;             /* retries that are not due */
byte ready;             /* key_move.ready */
byte moving;            /* rows of key_move, of committed events */
byte owner[LANES];      /* 0: nobody */
byte epoch[LANES];
byte registered;        /* rowhook.instance */
byte unseen;            /* those of it that have not said for long that they live */
byte nextId = 3;
#ifdef NEEDS_XMAX
byte xmax;              /* one above the last id that is over */
#endif
#ifdef OLD_CURSOR
byte lastCursor[LANES];
#endif
byte settled;           /* the events that were settled */
#if AGES > 0
byte aged;              /* events that are too old */
byte ages = AGES;
#endif
#ifdef POISON
byte deaths[LANES];     /* owners that have died with a lane */
byte tries[EVENTS];     /* attempts that were counted before they were made, and have no outcome */
byte killed;
#endif
#ifdef SPANS
#ifndef STRICT
byte before[EVENTS];    /* the events that were committed when this one drew its number */
#endif
#endif

/* The dispatchers. */
byte id[DISPATCHERS];   /* 0: not running */
byte buried;            /* instances that were taken for dead at some time */
byte noted[DISPATCHERS];    /* 1 + the last number, noted before an id is drawn; 0: nothing */
byte notes[DISPATCHERS];
byte low[DISPATCHERS * (EVENTS + 1)]; /* by transaction: its numbers are above this */
byte held[DISPATCHERS * LANES];     /* the epoch under which a lane is held; 0: not held */
byte cursor[DISPATCHERS * LANES];
byte queue[DISPATCHERS * LANES];    /* events that wait for their turn or are on their way */
byte barrier[DISPATCHERS * LANES];  /* moves out of a key of the lane */
byte seen[DISPATCHERS * LANES];     /* transactions that were over at the last read */
byte step[DISPATCHERS * LANES];     /* of the read */
byte from[DISPATCHERS * LANES];     /* the late read begins above this number */
byte rows[DISPATCHERS * LANES];     /* events that the read has found */
byte moves[DISPATCHERS * LANES];    /* moves that it has found */
byte since[DISPATCHERS * LANES];    /* events that were settled since the read began */
#ifdef STRICT
byte below[DISPATCHERS * LANES];    /* no event up to this number can come late */
byte next[DISPATCHERS * LANES];     /* the same, when the read under way has ended */
#endif
byte request[DISPATCHERS * EVENTS];
#ifdef POISON
byte there[DISPATCHERS * LANES];    /* the last number when the lane was taken */
byte after[DISPATCHERS * LANES];    /* keys of which something was settled since then */
#endif
byte former[DISPATCHERS * EVENTS];  /* the epoch of a request under which the lane is not held any more */

byte crashes = CRASHES, hangs = HANGS, releases = RELEASES, answers = ANSWERS, failures = FAILURES, rollbacks = ROLLBACKS;

byte e_, l_, x_, y_;    /* scratch of a d_step, 0 outside */
#define DONE e_ = 0; l_ = 0; x_ = 0; y_ = 0
#define WHO printf("dispatcher %d, instance %d: ", d, id[d])
#define EACH_EVENT e_ = 0; do :: e_ >= EVENTS -> break :: else ->
#define NEXT_EVENT e_++ od
#define EACH_LANE l_ = 0; do :: l_ >= LANES -> break :: else ->
#define NEXT_LANE l_++ od

#define AT(d, e) ((d) * EVENTS + (e))       /* of a dispatcher's event */
#define OF(d, l) ((d) * LANES + (l))        /* of a dispatcher's lane */
#define BOUND(d, x) ((d) * (EVENTS + 1) + (x))
#if LANES == 1
#define LANE(k) 0
#else
#define LANE(k) (k)
#endif

#define MAY_ACT(d) (id[d] != 0 && HAS(registered, id[d]))
#define MAY_FAIL(d) (d == 0)    /* dispatchers are alike */
#define IS_FREE(l) (owner[l] == 0 || !HAS(registered, owner[l]))

/* Two events that share a key. */
#define SHARE(e, f) (key[e] == key[f] || old[e] == key[f] || key[e] == old[f] || old[e] != NO_KEY && old[e] == old[f])

/* What the lane q of a dispatcher knows of key k with a number below s. */
#define KNOWS_LOWER(f, q, k, s) ((HAS(queue[q], f) && key[f] == (k) || HAS(barrier[q], f) && old[f] == (k)) && seq[f] < (s))
#ifdef ANEW_FORGETS
#define ON_ITS_WAY(f, d, k) (request[AT(d, f)] != NONE && key[f] == (k))
#else
#define ON_ITS_WAY(f, d, k) ((request[AT(d, f)] != NONE || former[AT(d, f)] != 0) && key[f] == (k))
#endif
#if EVENTS == 2
#define IS_HEAD(q, k, s) (!KNOWS_LOWER(0, q, k, s) && !KNOWS_LOWER(1, q, k, s))
#define FREE_KEY(d, k) (!ON_ITS_WAY(0, d, k) && !ON_ITS_WAY(1, d, k))
#elif EVENTS == 3
#define IS_HEAD(q, k, s) (!KNOWS_LOWER(0, q, k, s) && !KNOWS_LOWER(1, q, k, s) && !KNOWS_LOWER(2, q, k, s))
#define FREE_KEY(d, k) (!ON_ITS_WAY(0, d, k) && !ON_ITS_WAY(1, d, k) && !ON_ITS_WAY(2, d, k))
#else
#define IS_HEAD(q, k, s) (!KNOWS_LOWER(0, q, k, s) && !KNOWS_LOWER(1, q, k, s) && !KNOWS_LOWER(2, q, k, s) && !KNOWS_LOWER(3, q, k, s))
#define FREE_KEY(d, k) (!ON_ITS_WAY(0, d, k) && !ON_ITS_WAY(1, d, k) && !ON_ITS_WAY(2, d, k) && !ON_ITS_WAY(3, d, k))
#endif

/* Variants: who sends does not wait for the settlement; a barrier that was lowered once stays in front. */
#ifdef NEXT_EARLY
#undef IS_HEAD
#undef KNOWS_LOWER
#define KNOWS_LOWER(f, d, q, k, s) ((HAS(queue[q], f) && key[f] == (k) && request[AT(d, f)] != DELIVERED || HAS(barrier[q], f) && old[f] == (k)) && seq[f] < (s))
#define IS_HEAD(q, k, s) (!KNOWS_LOWER(0, d, q, k, s) && !KNOWS_LOWER(1, d, q, k, s))
#undef ON_ITS_WAY
#define ON_ITS_WAY(f, d, k) ((request[AT(d, f)] == FLYING || request[AT(d, f)] == REFUSED) && key[f] == (k))
#endif
#ifdef BARRIER_STAYS
#define STAYS(f, q, k) (HAS(barrier[q], f) && old[f] == (k) && HAS(ready, f))
#define NO_BARRIER(q, k) (!STAYS(0, q, k) && !STAYS(1, q, k))
#else
#define NO_BARRIER(q, k) true
#endif

#ifdef STRICT
#define IS_SAFE(q, s) ((s) <= below[q])
#else
#define IS_SAFE(q, s) true
#endif

#ifdef NO_READY
#define IS_READY(e) true
#else
#define IS_READY(e) (!HAS(moving, e) || HAS(ready, e))
#endif

#ifdef NO_BEAT
#define LIVES(d) (id[d] != 0)
#else
#define LIVES(d) MAY_ACT(d)
#endif

/* The fence of a settlement. */
#ifdef NO_FENCE
#define FENCE(d, l, n) true
#else
#define FENCE(d, l, n) (owner[l] == id[d] && epoch[l] == (n))
#endif
#define OWNS(d, l, n) (owner[l] == id[d] && epoch[l] == (n))

/* Rows of a lane above a number, and a late one among those up to the cursor. */
#ifdef DIRTY_READ
#define IS_THERE(e) (place[e] == LOG || place[e] == DRAWN)
#else
#define IS_THERE(e) (place[e] == LOG)
#endif
#define ROW(e, l, above) (IS_THERE(e) && LANE(key[e]) == (l) && seq[e] > (above))
#define MOVE(e, l, above) (HAS(moving, e) && LANE(old[e]) == (l) && seq[e] > (above))
#define AFTER(e, q, l) (ROW(e, l, cursor[q]) || MOVE(e, l, cursor[q]))
#ifdef STRICT_XMAX
#define ABOVE(d, x) 0   /* reads everything again: nothing but the horizon is wrong */
#else
#define ABOVE(d, x) low[BOUND(d, x)]
#endif
#define IS_LATE(x, d, q) (HAS(ended & ~seen[q], x) && ABOVE(d, x) < cursor[q])
#if EVENTS == 2
#define FINDS(d, q, l) (AFTER(0, q, l) || AFTER(1, q, l))
#define ANY_LATE(d, q) (IS_LATE(0, d, q) || IS_LATE(1, d, q))
#elif EVENTS == 3
#define FINDS(d, q, l) (AFTER(0, q, l) || AFTER(1, q, l) || AFTER(2, q, l))
#define ANY_LATE(d, q) (IS_LATE(0, d, q) || IS_LATE(1, d, q) || IS_LATE(2, d, q))
#else
#define FINDS(d, q, l) (AFTER(0, q, l) || AFTER(1, q, l) || AFTER(2, q, l) || AFTER(3, q, l))
#define ANY_LATE(d, q) (IS_LATE(0, d, q) || IS_LATE(1, d, q) || IS_LATE(2, d, q) || IS_LATE(3, d, q))
#endif
#ifdef NO_LATE
#undef ANY_LATE
#define ANY_LATE(d, q) false
#endif

/* Strict: the numbers up to this one belong to transactions that are over. Every id below x is, for the first x that is not. */
#define BELOW(d) (HAS(ended, 0) -> (HAS(ended, 1) -> BELOW_2(d) : low[BOUND(d, 1)]) : low[BOUND(d, 0)])
#if EVENTS == 2
#define BELOW_2(d) low[BOUND(d, 2)]
#elif EVENTS == 3
#define BELOW_2(d) (HAS(ended, 2) -> low[BOUND(d, 3)] : low[BOUND(d, 2)])
#else
#define BELOW_2(d) (HAS(ended, 2) -> (HAS(ended, 3) -> low[BOUND(d, 4)] : low[BOUND(d, 3)]) : low[BOUND(d, 2)])
#endif
#ifdef STRICT
#define RAISES(d, q) (BELOW(d) > below[q] && (queue[q] | barrier[q]) != 0)
#define READ_SAFE(q) next[q] = BELOW(d)
#define SAFE_NOW(q) below[q] = next[q]
#else
#define RAISES(d, q) false
#define READ_SAFE(q) skip
#define SAFE_NOW(q) skip
#endif

/* A transaction of a dispatcher has had an id, and is over. */
inline wrote() {
#ifdef NEEDS_XMAX
	xmax = begun
#else
	skip
#endif
}

inline end_transaction(e) {
	ended = ended | BIT(e);
#ifdef NEEDS_XMAX
	if
	:: xmax <= e -> xmax = e + 1
	:: else
	fi
#endif
}

/*
 * The memory of a lane is dropped. Requests that are on their way go on, under an epoch that may have passed. Until they
 * end, nothing more of their keys is sent.
 */
inline drop(d, l) {
	EACH_EVENT
		if
		:: request[AT(d, e_)] != NONE && LANE(key[e_]) == l ->
			if
			:: request[AT(d, e_)] == FLYING || request[AT(d, e_)] == DELIVERED -> former[AT(d, e_)] = held[OF(d, l)]
			:: else
			fi;
			request[AT(d, e_)] = NONE
		:: else
		fi;
	NEXT_EVENT;
	held[OF(d, l)] = 0; cursor[OF(d, l)] = 0; queue[OF(d, l)] = 0; barrier[OF(d, l)] = 0; seen[OF(d, l)] = 0;
	end_read(d, l);
#ifdef POISON
	there[OF(d, l)] = 0; after[OF(d, l)] = 0;
#endif
#ifdef STRICT
	below[OF(d, l)] = 0
#endif
}

inline end_read(d, l) {
	step[OF(d, l)] = RESTING; from[OF(d, l)] = 0; rows[OF(d, l)] = 0; moves[OF(d, l)] = 0; since[OF(d, l)] = 0;
#ifdef STRICT
	next[OF(d, l)] = 0
#endif
}

/* What a read has found is known from now on. */
inline admit(d, l) {
#ifndef RESURRECT
	rows[OF(d, l)] = rows[OF(d, l)] & ~since[OF(d, l)];
	moves[OF(d, l)] = moves[OF(d, l)] & ~since[OF(d, l)];
#endif
	queue[OF(d, l)] = queue[OF(d, l)] | rows[OF(d, l)];
	barrier[OF(d, l)] = barrier[OF(d, l)] | moves[OF(d, l)];
	SAFE_NOW(OF(d, l));
	end_read(d, l)
}

inline find(d, l, above) {
	EACH_EVENT
		if
		:: ROW(e_, l, above) -> rows[OF(d, l)] = rows[OF(d, l)] | BIT(e_)
		:: else
		fi;
		if
		:: MOVE(e_, l, above) -> moves[OF(d, l)] = moves[OF(d, l)] | BIT(e_)
		:: else
		fi;
	NEXT_EVENT
}

inline take(l, d) {
#ifdef POISON
	deaths[l] = deaths[l] + (owner[l] != 0 && owner[l] != id[d] && deaths[l] < DEADLY -> 1 : 0);
	there[OF(d, l)] = drawn;
#endif
	owner[l] = id[d];
	epoch[l]++;
	wrote()
}

/* The event leaves event_log. */
inline settle(d, e, n) {
	if
	:: place[e] == LOG ->
		assert(OWNS(d, LANE(key[e]), n)); /* who lost the lane changes nothing */
		place[e] = GONE;
		settled = settled | BIT(e);
		later = later & ~BIT(e)
	:: else
	fi;
	wrote()
}

/* What must hold where a request begins. */
#if defined(SPANS) && !defined(STRICT) && !defined(CHECK_ALL)
#define INVERTS(e, f) (HAS(settled, f) && HAS(before[f], e))
#define TOUCH(e, f) (key[e] == key[f]) /* what is read late may overtake a move that is on its way */
#endif
#ifndef INVERTS
#define INVERTS(e, f) (HAS(settled, f) && seq[f] > seq[e] && SHARE(e, f))
#define TOUCH(e, f) SHARE(e, f)
#endif
#define ELSEWHERE(d, f) (id[1 - (d)] != 0 && !HAS(buried, id[1 - (d)]) && (request[AT(1 - (d), f)] != NONE || former[AT(1 - (d), f)] != 0))
#define BESIDE(d, e, f) (f == e && ELSEWHERE(d, f) || f != e && TOUCH(e, f) && (request[AT(d, f)] == FLYING || ELSEWHERE(d, f)) || \
		TOUCH(e, f) && former[AT(d, f)] != 0)
inline check_begin(d, e) {
	assert(place[e] == LOG || place[e] == GONE); /* only what is committed is sent */
	EACH_EVENT
		assert(!INVERTS(e, e_)); /* never after a later one of its key was settled */
		assert(!BESIDE(d, e, e_)); /* one on its way in a key */
	NEXT_EVENT
}

#if AGES > 0
#define IS_OLD(e) HAS(aged, e)
#else
#define IS_OLD(e) false
#endif

#define MAY_SEND(e) (LIVES(d) && held[OF(d, LANE(key[e]))] != 0 && HAS(queue[OF(d, LANE(key[e]))], e) && request[AT(d, e)] == NONE && \
		!HAS(later, e) && IS_HEAD(OF(d, LANE(key[e])), key[e], seq[e]) && FREE_KEY(d, key[e]) && \
		NO_BARRIER(OF(d, LANE(key[e])), key[e]) && IS_SAFE(OF(d, LANE(key[e])), seq[e]) && IS_READY(e))

/*
 * The first event of its key is given up without an attempt if it is too old. Variants give up any, or one whose request is
 * on its way.
 */
#ifdef EXPIRE_ANY
#define MAY_EXPIRE(e) (LIVES(d) && held[OF(d, LANE(key[e]))] != 0 && HAS(queue[OF(d, LANE(key[e]))], e) && request[AT(d, e)] == NONE)
#elif defined(EXPIRE_FLYING)
#define MAY_EXPIRE(e) (MAY_SEND(e) || request[AT(d, e)] == FLYING)
#else
#define MAY_EXPIRE(e) MAY_SEND(e)
#endif
#define EXPIRE(e) \
	:: d_step { IS_OLD(e) && MAY_EXPIRE(e) -> \
		WHO; printf("gives up event %d, which is too old\n", e); \
		assert(request[AT(d, e)] != FLYING && former[AT(d, e)] == 0 && !ELSEWHERE(d, e)); /* none expires while it is being sent */ \
		request[AT(d, e)] = DELIVERED }

/*
 * What was on its way when the owner died is, for the next one, the first of its key. Only that is counted before it is
 * sent. The count is written under the fence, and the event is sent after that.
 */
#ifdef POISON
#define KILLS(e) ((e) == 0)
#define SETTLES(e, l) tries[e] = 0; after[OF(d, l)] = after[OF(d, l)] | BIT(key[e])
#ifdef UNCOUNTED
#define SUSPECTS(e) false
#else
#define SUSPECTS(e) (tries[e] > 0 || deaths[LANE(key[e])] >= DEADLY && seq[e] <= there[OF(d, LANE(key[e]))] && !HAS(after[OF(d, LANE(key[e]))], key[e]))
#endif
#define COUNT(e) \
	:: d_step { MAY_SEND(e) && SUSPECTS(e) && tries[e] >= LIMIT -> \
		WHO; printf("gives event %d up\n", e); \
		request[AT(d, e)] = DELIVERED } \
	:: d_step { MAY_SEND(e) && SUSPECTS(e) && tries[e] < LIMIT -> \
		l_ = LANE(key[e]); \
		if \
		:: FENCE(d, l_, held[OF(d, l_)]) -> \
			WHO; printf("counts an attempt of event %d\n", e); \
			assert(OWNS(d, l_, held[OF(d, l_)])); \
			tries[e]++; \
			request[AT(d, e)] = COUNTED; \
			wrote() \
		:: else -> \
			WHO; printf("finds that lane %d is not its own any more\n", l_); \
			x_ = l_; \
			drop(d, x_) \
		fi; \
		DONE } \
	:: d_step { LIVES(d) && request[AT(d, e)] == COUNTED -> \
		WHO; printf("sends event %d, which it has counted\n", e); \
		request[AT(d, e)] = NONE; \
		check_begin(d, e); \
		request[AT(d, e)] = FLYING; \
		DONE } \
	:: d_step { KILLS(e) && request[AT(d, e)] == FLYING -> \
		WHO; printf("is killed by event %d\n", e); \
		killed++; \
		assert(killed <= DEADLY + 1 + LIMIT); /* one of them where it was not the first of its key */ \
		forget(d); \
		DONE }
#else
#define KILLS(e) false
#define SETTLES(e, l) skip
#define SUSPECTS(e) false
#define COUNT(e)
#endif

/* Variant: an event whose outcome was void is sent again without a look whether it is still in event_log. */
#ifdef BELIEVE_FORMER
#define IS_VOID(e) queue[OF(d, LANE(key[e]))] = queue[OF(d, LANE(key[e]))] | (held[OF(d, LANE(key[e]))] != 0 -> BIT(e) : 0)
#else
#define IS_VOID(e) skip
#endif

#define SEND(e) \
	:: d_step { MAY_SEND(e) && !SUSPECTS(e) && !IS_OLD(e) -> \
		WHO; printf("sends event %d, number %d of key %d\n", e, seq[e], key[e]); \
		check_begin(d, e); \
		request[AT(d, e)] = FLYING; \
		DONE } \
	:: d_step { !KILLS(e) && request[AT(d, e)] == FLYING -> \
		printf("receiver: takes event %d of dispatcher %d\n", e, d); \
		request[AT(d, e)] = DELIVERED } \
	:: d_step { !KILLS(e) && failures > 0 && request[AT(d, e)] == FLYING -> \
		failures--; \
		printf("receiver: refuses event %d of dispatcher %d\n", e, d); \
		request[AT(d, e)] = REFUSED } \
	:: d_step { request[AT(d, e)] == DELIVERED || request[AT(d, e)] == REFUSED -> \
		l_ = LANE(key[e]); \
		if \
		:: FENCE(d, l_, held[OF(d, l_)]) && request[AT(d, e)] == DELIVERED -> \
			WHO; printf("settles event %d\n", e); \
			settle(d, e, held[OF(d, l_)]); \
			SETTLES(e, l_); \
			queue[OF(d, l_)] = queue[OF(d, l_)] & ~BIT(e); \
			since[OF(d, l_)] = (step[OF(d, l_)] == RESTING -> 0 : since[OF(d, l_)] | BIT(e)); \
			request[AT(d, e)] = NONE \
		:: FENCE(d, l_, held[OF(d, l_)]) && request[AT(d, e)] == REFUSED -> \
			WHO; printf("postpones event %d\n", e); \
			assert(OWNS(d, l_, held[OF(d, l_)])); \
			later = later | BIT(e); \
			SETTLES(e, l_); \
			request[AT(d, e)] = NONE; \
			wrote() \
		:: else -> \
			WHO; printf("finds that lane %d is not its own any more\n", l_); \
			x_ = l_; \
			drop(d, x_) \
		fi; \
		DONE } \
	COUNT(e) \
	:: d_step { former[AT(d, e)] != 0 -> \
		if \
		:: FENCE(d, LANE(key[e]), former[AT(d, e)]) -> \
			WHO; printf("settles event %d under an old epoch\n", e); \
			settle(d, e, former[AT(d, e)]) \
		:: else -> \
			WHO; printf("settles event %d, and changes nothing\n", e); \
			IS_VOID(e) \
		fi; \
		former[AT(d, e)] = 0; \
		DONE }

/* A settlement that commits is made again if its answer gets lost. */
#define LOSE_SETTLEMENT(e) \
	:: d_step { answers > 0 && request[AT(d, e)] == DELIVERED && FENCE(d, LANE(key[e]), held[OF(d, LANE(key[e]))]) && place[e] == LOG -> \
		answers--; \
		WHO; printf("settles event %d, and does not hear so\n", e); \
		settle(d, e, held[OF(d, LANE(key[e]))]); \
		DONE }

/* The owner of the old key's lane lets a move pass when all earlier events of that key are settled, and waits until it is gone. */
#define LET_PASS(e) \
	:: d_step { old[e] != NO_KEY && held[OF(d, LANE(old[e]))] != 0 && HAS(barrier[OF(d, LANE(old[e]))], e) && !HAS(ready, e) && \
		IS_HEAD(OF(d, LANE(old[e])), old[e], seq[e]) && FREE_KEY(d, old[e]) && NO_BARRIER(OF(d, LANE(old[e])), old[e]) && \
		IS_SAFE(OF(d, LANE(old[e])), seq[e]) -> \
		l_ = LANE(old[e]); \
		if \
		:: FENCE(d, l_, held[OF(d, l_)]) -> \
			WHO; printf("lets event %d leave key %d\n", e, old[e]); \
			assert(OWNS(d, l_, held[OF(d, l_)])); \
			ready = ready | BIT(e); \
			wrote() \
		:: else -> \
			WHO; printf("finds that lane %d is not its own any more\n", l_); \
			x_ = l_; \
			drop(d, x_) \
		fi; \
		DONE } \
	:: d_step { old[e] != NO_KEY && held[OF(d, LANE(old[e]))] != 0 && HAS(barrier[OF(d, LANE(old[e]))], e) && place[e] == GONE -> \
		l_ = LANE(old[e]); \
		if \
		:: FENCE(d, l_, held[OF(d, l_)]) -> \
			WHO; printf("goes on in key %d after event %d\n", old[e], e); \
			assert(OWNS(d, l_, held[OF(d, l_)])); \
			moving = moving & ~BIT(e); \
			ready = ready & ~BIT(e); \
			barrier[OF(d, l_)] = barrier[OF(d, l_)] & ~BIT(e); \
			since[OF(d, l_)] = (step[OF(d, l_)] == RESTING -> 0 : since[OF(d, l_)] | BIT(e)); \
			wrote() \
		:: else -> \
			WHO; printf("finds that lane %d is not its own any more\n", l_); \
			x_ = l_; \
			drop(d, x_) \
		fi; \
		DONE }

#define IS_IN_LANE(f, d, l) ((request[AT(d, f)] != NONE || former[AT(d, f)] != 0) && LANE(key[f]) == (l))
#if EVENTS == 2
#define AT_WORK(d, l) (IS_IN_LANE(0, d, l) || IS_IN_LANE(1, d, l))
#elif EVENTS == 3
#define AT_WORK(d, l) (IS_IN_LANE(0, d, l) || IS_IN_LANE(1, d, l) || IS_IN_LANE(2, d, l))
#else
#define AT_WORK(d, l) (IS_IN_LANE(0, d, l) || IS_IN_LANE(1, d, l) || IS_IN_LANE(2, d, l) || IS_IN_LANE(3, d, l))
#endif
#ifdef RELEASE_FLYING
#undef AT_WORK
#define AT_WORK(d, l) false
#endif

#ifdef FORGET_OWN
#define MAY_CLAIM(d, l) IS_FREE(l)
#else
#define MAY_CLAIM(d, l) (IS_FREE(l) || owner[l] == id[d])
#endif

#define WORK_ON(l) \
	:: d_step { MAY_ACT(d) && held[OF(d, l)] == 0 && MAY_CLAIM(d, l) -> \
		WHO; printf("claims lane %d\n", l); \
		take(l, d); \
		held[OF(d, l)] = epoch[l]; \
		TAKE_CURSOR(l); \
		DONE } \
	:: d_step { answers > 0 && MAY_ACT(d) && held[OF(d, l)] == 0 && MAY_CLAIM(d, l) -> \
		answers--; \
		WHO; printf("claims lane %d, and does not hear so\n", l); \
		take(l, d) } \
	:: d_step { releases > 0 && held[OF(d, l)] != 0 && owner[l] == id[d] && epoch[l] == held[OF(d, l)] && !AT_WORK(d, l) -> \
		releases--; \
		WHO; printf("gives lane %d back\n", l); \
		owner[l] = 0; \
		drop(d, l); \
		wrote(); \
		DONE } \
	:: d_step { id[d] != 0 && held[OF(d, l)] != 0 && step[OF(d, l)] == RESTING && (FINDS(d, OF(d, l), l) || ANY_LATE(d, OF(d, l)) || RAISES(d, OF(d, l))) -> \
		WHO; printf("reads lane %d after %d\n", l, cursor[OF(d, l)]); \
		find(d, l, cursor[OF(d, l)]); \
		from[OF(d, l)] = cursor[OF(d, l)]; \
		EACH_EVENT \
			if \
			:: IS_LATE(e_, d, OF(d, l)) && ABOVE(d, e_) < from[OF(d, l)] -> from[OF(d, l)] = ABOVE(d, e_) \
			:: else \
			fi; \
		NEXT_EVENT; \
		READ_SAFE(OF(d, l)); \
		seen[OF(d, l)] = ended; \
		BELIEVE_XMAX(l); \
		step[OF(d, l)] = (from[OF(d, l)] < cursor[OF(d, l)] -> LATE : RESTING); \
		EACH_EVENT \
			if \
			:: HAS(rows[OF(d, l)] | moves[OF(d, l)], e_) && seq[e_] > cursor[OF(d, l)] -> cursor[OF(d, l)] = seq[e_] \
			:: else \
			fi; \
		NEXT_EVENT; \
		KEEP_CURSOR(l); \
		if \
		:: step[OF(d, l)] == RESTING || SENDS_AT_ONCE -> \
			x_ = step[OF(d, l)]; y_ = from[OF(d, l)]; \
			admit(d, l); \
			step[OF(d, l)] = x_; \
			from[OF(d, l)] = (x_ == RESTING -> 0 : y_) \
		:: else \
		fi; \
		DONE } \
	:: d_step { step[OF(d, l)] == LATE -> \
		WHO; printf("reads lane %d once more, after %d\n", l, from[OF(d, l)]); \
		x_ = from[OF(d, l)]; \
		y_ = cursor[OF(d, l)]; \
		EACH_EVENT \
			if \
			:: ROW(e_, l, x_) && seq[e_] <= y_ -> rows[OF(d, l)] = rows[OF(d, l)] | BIT(e_) \
			:: else \
			fi; \
			if \
			:: MOVE(e_, l, x_) && seq[e_] <= y_ -> moves[OF(d, l)] = moves[OF(d, l)] | BIT(e_) \
			:: else \
			fi; \
		NEXT_EVENT; \
		since[OF(d, l)] = 0; \
		step[OF(d, l)] = ANSWERED; \
		DONE } \
	:: d_step { step[OF(d, l)] == ANSWERED -> \
		WHO; printf("has read lane %d\n", l); \
		admit(d, l); \
		DONE }

#ifdef LATE_AFTER
#define SENDS_AT_ONCE true
#else
#define SENDS_AT_ONCE false
#endif
#ifdef OLD_CURSOR
#define TAKE_CURSOR(l) cursor[OF(d, l)] = lastCursor[l]; seen[OF(d, l)] = ended
#define KEEP_CURSOR(l) lastCursor[l] = cursor[OF(d, l)]
#else
#define TAKE_CURSOR(l) skip
#define KEEP_CURSOR(l) skip
#endif
#ifdef LISTED_ONLY
/* Variant: what is open is what the snapshot lists. */
#define BELIEVE_XMAX(l) seen[OF(d, l)] = ended | (ALL & ~(BIT(xmax) - 1))
#else
#define BELIEVE_XMAX(l) skip
#endif

#ifdef XMAX
#define DRAWS_FROM xmax
#else
#define DRAWS_FROM begun
#endif

#if LANES == 1
#define HOLDS_SOME(d) (held[OF(d, 0)] != 0)
#else
#define HOLDS_SOME(d) (held[OF(d, 0)] != 0 || held[OF(d, 1)] != 0)
#endif

/* From the id on that is drawn now, transactions draw numbers above the one that was noted. */
inline note(d) {
#ifdef NOTED_AFTER
	e_ = noted[d] - 1;
#else
	e_ = DRAWS_FROM;
#endif
	do
	:: e_ > EVENTS -> break
	:: else ->
#ifdef NOTED_AFTER
		low[BOUND(d, e_)] = drawn;
#else
		low[BOUND(d, e_)] = noted[d] - 1;
#endif
		e_++
	od;
#ifndef XMAX
	wrote();
#endif
	noted[d] = 0
}

inline forget(d) {
	EACH_LANE
		x_ = l_;
		drop(d, x_);
	NEXT_LANE;
	EACH_EVENT
		former[AT(d, e_)] = 0;
		low[BOUND(d, e_)] = 0;
	NEXT_EVENT;
	low[BOUND(d, EVENTS)] = 0;
	noted[d] = 0;
	unseen = unseen | BIT(id[d]);
	id[d] = 0
}

/* Writers of one row wait for each other. */
#define HOLDS_ROW(f, e) (f != e && place[f] == DRAWN && SHARE(e, f))
#ifdef SPANS
#define MAY_DRAW(e) true
#elif EVENTS == 2
#define MAY_DRAW(e) (!HOLDS_ROW(0, e) && !HOLDS_ROW(1, e))
#elif EVENTS == 3
#define MAY_DRAW(e) (!HOLDS_ROW(0, e) && !HOLDS_ROW(1, e) && !HOLDS_ROW(2, e))
#else
#define MAY_DRAW(e) (!HOLDS_ROW(0, e) && !HOLDS_ROW(1, e) && !HOLDS_ROW(2, e) && !HOLDS_ROW(3, e))
#endif

proctype writer(byte e) {
	d_step { begun == e ->
		printf("writer %d: takes a transaction id\n", e);
		place[e] = BEGUN; begun++ };
	d_step { MAY_DRAW(e) ->
		drawn++;
		seq[e] = drawn;
		place[e] = DRAWN;
#ifdef SPANS
#ifndef STRICT
		EACH_EVENT
			if
			:: e_ != e && SHARE(e, e_) && (place[e_] == LOG || place[e_] == GONE) -> before[e] = before[e] | BIT(e_)
			:: else
			fi;
		NEXT_EVENT;
#endif
#endif
		printf("writer %d: draws number %d for event %d of key %d\n", e, drawn, e, key[e]);
		if
		:: old[e] != NO_KEY -> printf("writer %d: event %d leaves key %d\n", e, e, old[e])
		:: else
		fi;
		DONE };
	if
	:: d_step {
		printf("writer %d: commits event %d\n", e, e);
		place[e] = LOG;
		if
		:: old[e] != NO_KEY -> moving = moving | BIT(e)
		:: else
		fi;
		end_transaction(e) }
	:: d_step { rollbacks > 0 ->
		rollbacks--;
		printf("writer %d: rolls back event %d\n", e, e);
		place[e] = ROLLED_BACK;
		end_transaction(e) }
	fi
}

proctype dispatcher(byte d) {
end:
	do
	/* ---- the process ---- */
	:: d_step { MAY_FAIL(d) && crashes > 0 && id[d] != 0 ->
		crashes--;
		WHO; printf("crashes\n");
		forget(d);
		DONE }
	:: d_step { MAY_FAIL(d) && hangs > 0 && MAY_ACT(d) && !HAS(unseen, id[d]) ->
		hangs--;
		WHO; printf("can't show that it lives\n");
		unseen = unseen | BIT(id[d]) }
	:: d_step { MAY_FAIL(d) && id[d] != 0 && HAS(unseen & registered, id[d]) ->
		WHO; printf("shows again that it lives\n");
		unseen = unseen & ~BIT(id[d]) }
	:: d_step { MAY_FAIL(d) && id[d] != 0 && !HAS(registered, id[d]) ->
		WHO; printf("finds that it was buried, and registers again\n");
#ifndef RETURN_KEEPS
		EACH_LANE
			x_ = l_;
			drop(d, x_);
		NEXT_LANE;
#endif
		registered = registered | BIT(id[d]);
		unseen = unseen & ~BIT(id[d]);
		DONE }
#ifdef POISON
	:: d_step { id[d] == 0 ->
		id[d] = nextId;
		nextId++;
		registered = registered | BIT(id[d]);
		WHO; printf("starts\n") }
#define MAY_BURY(d) MAY_ACT(d)
#else
#define MAY_BURY(d) (!MAY_FAIL(d))
#endif
	:: d_step { MAY_BURY(d) && (unseen & registered) != 0 ->
		WHO; printf("buries instances %d\n", unseen & registered);
		buried = buried | (unseen & registered);
		registered = registered & ~unseen;
		wrote() }

	/* ---- the order ---- */
	:: d_step { HOLDS_SOME(d) && noted[d] == 0 && notes[d] < NOTES && low[BOUND(d, EVENTS)] < drawn ->
		notes[d]++;
#ifdef NOTED_AFTER
		WHO; printf("draws an id\n");
		noted[d] = begun + 1;
#else
		WHO; printf("notes the last number, %d\n", drawn);
		noted[d] = drawn + 1;
#endif
#ifndef SLOWLY
		WHO; printf("draws an id\n");
		note(d);
#endif
		DONE }
#ifdef SLOWLY
	:: d_step { noted[d] != 0 ->
#ifdef NOTED_AFTER
		WHO; printf("notes the last number, %d\n", drawn);
#else
		WHO; printf("draws an id\n");
#endif
		note(d);
		DONE }
#endif
	WORK_ON(0)
#if LANES > 1
	WORK_ON(1)
#endif

	/* ---- senders and settler ---- */
	SEND(0)
	SEND(1)
#if EVENTS > 2
	SEND(2)
#endif
#if EVENTS > 3
	SEND(3)
#endif
#if AGES > 0
	EXPIRE(0)
	EXPIRE(1)
#if EVENTS > 2
	EXPIRE(2)
#endif
#endif
#if ANSWERS > 0
	LOSE_SETTLEMENT(0)
	LOSE_SETTLEMENT(1)
#if EVENTS > 2
	LOSE_SETTLEMENT(2)
#endif
#endif
#if MOVES > 0
	LET_PASS(0)
	LET_PASS(1)
#if EVENTS > 2
	LET_PASS(2)
#endif
#if EVENTS > 3
	LET_PASS(3)
#endif
#endif
	od
}

#define HAPPENS(e) \
	:: d_step { HAS(later, e) -> \
		printf("world: the retry of event %d is due\n", e); \
		later = later & ~BIT(e) }

#define AGE(e) \
	:: d_step { ages > 0 && place[e] == LOG && !HAS(aged, e) -> \
		ages--; \
		printf("world: event %d is too old\n", e); \
		aged = aged | BIT(e) }

/* What happens by itself. */
proctype world() {
end:
	do
	:: d_step { crashes + hangs + releases + answers + failures + rollbacks > 0 -> /* from here on nothing disturbs */
		crashes = 0; hangs = 0; releases = 0; answers = 0; failures = 0; rollbacks = 0 }
#if AGES > 0
	AGE(0)
	AGE(1)
#if EVENTS > 2
	AGE(2)
#endif
#endif
#if FAILURES > 0
	HAPPENS(0)
	HAPPENS(1)
#if EVENTS > 2
	HAPPENS(2)
#endif
#if EVENTS > 3
	HAPPENS(3)
#endif
#endif
	od
}

/* Where nothing moves any more, every transaction is over, and every committed event is settled. */
proctype monitor() {
	timeout -> d_step {
		EACH_EVENT
			if
			:: place[e_] == LOG -> printf("monitor: nothing moves any more, and event %d was not delivered\n", e_)
			:: else
			fi;
			assert(place[e_] == GONE || place[e_] == ROLLED_BACK);
		NEXT_EVENT;
		if
		:: moving != 0 -> printf("monitor: nothing moves any more, and a move waits\n")
		:: else
		fi;
		assert(moving == 0);
		DONE
	}
}

init {
	byte n;
	byte m = MOVES;
	atomic {
		do
		:: n < EVENTS ->
			old[n] = NO_KEY;
			if
			:: key[n] = 0
#if LANES == 1
			:: n > 0 -> key[n] = 1 /* keys are alike */
#else
			:: key[n] = 1
#endif
#if MOVES > 0
			:: m > 0 -> key[n] = 0; old[n] = 1; m--
			:: m > 0 -> key[n] = 1; old[n] = 0; m--
#endif
			fi;
			n++
		:: else -> break
		od;
		n = 0;
		m = 0;
		do
		:: n < DISPATCHERS ->
			id[n] = n + 1;
			registered = registered | BIT(n + 1);
			n++
		:: else -> break
		od;
		/* Each has a lane; where there is one, the first dispatcher has it. */
		n = 0;
		do
		:: n < LANES -> owner[n] = n + 1; epoch[n] = 1; held[OF(n, n)] = 1; n++
		:: else -> break
		od;
		n = 0;
		do
		:: n < DISPATCHERS -> run dispatcher(n); n++
		:: else -> break
		od;
		n = 0;
		do
		:: n < EVENTS -> run writer(n); n++
		:: else -> break
		od;
		run world();
		run monitor();
		n = 0
	}
}
