/* SPDX-License-Identifier: Apache-2.0 */
/* The lock handshake of two left anchors that contend for segments of one chain (paper III-B), as core/lock.h and
 * core/release.h carry it out.  Names are those of the code; docs/verification.md says how to read and run it.
 *
 *   HOSTS            agents in the chain, 0 is the leftmost
 *   LEFT1 RIGHT1     anchors of transaction 1; LEFT2 RIGHT2: of transaction 2
 *   LOSSES           so many messages, whichever they are, get lost
 *   BROKEN_...       negative controls: the checks must find them
 */
#define LEFT(t)  (t == 1 -> LEFT1 : LEFT2)
#define RIGHT(t) (t == 1 -> RIGHT1 : RIGHT2)
#define OTHER(t) (3 - t)
#define OVERLAP  ((LEFT1 > LEFT2 -> LEFT1 : LEFT2) < (RIGHT1 < RIGHT2 -> RIGHT1 : RIGHT2))
#define DEPTH    6

mtype = { requestLock, ackLock, nackLock, release, ackRelease };
mtype = { unlocked, lockPending, locked };
mtype = { idle, asking, won, lost, over };

typedef Agent {
	mtype lock;     /* of the subsession to its right */
	byte txid;      /* who has it, or had it last */
	byte held;      /* the request that waits, 0: none */
	byte record;    /* the reconfiguration whose right anchor this agent is, 0: none */
	byte done       /* the last one that was completed here */
};

Agent agent[4];
mtype outcome[3];       /* by transaction, at its left anchor */
byte losses = LOSSES;
byte repeats[3];        /* by transaction: so many of its messages have got lost and are worth a repetition */
bool released[3];
chan rightward[4] = [DEPTH] of { mtype, byte };     /* [i]: what has left agent i to the right */
chan leftward[4] = [DEPTH] of { mtype, byte };      /* [i]: what has left agent i to the left */

#define active(t)  (outcome[t] == asking || outcome[t] == won)
#define decided(t) (outcome[t] == won || outcome[t] == lost || outcome[t] == over)
#define succeeded(t) (outcome[t] == won || outcome[t] == over)
#define ended(t)   (outcome[t] == lost || outcome[t] == over)
/* A record that waits for an anchor which has gone: until its lease has run out. */
#define unsettled(i, t) (agent[i].record && agent[i].record != t)

#define CLEAN(i) (agent[i].lock == unlocked && !agent[i].record && !agent[i].held && !len(rightward[i]) && !len(leftward[i]))

inline send(channel, message, t)
{
	assert(nfull(channel));
	if
	:: channel!message(t)
	:: losses > 0 -> losses--; repeats[t]++
	fi
}

/* A request that has waited is refused when the one before it is answered, either way. */
inline held_refuse(i)
{
	if
#ifdef BROKEN_HOLD
	:: agent[i].held -> agent[i].held = 0
#endif
	:: agent[i].held ->
		send(leftward[i], nackLock, agent[i].held);
		agent[i].held = 0
	:: else
	fi
}

inline lock_at_right_anchor(i, t)
{
	if
	:: agent[i].record == t -> send(leftward[i], ackLock, t)
	:: agent[i].record != t && (agent[i].record || agent[i].done == t) -> send(leftward[i], nackLock, t)
	:: else ->
		agent[i].record = t;
		send(leftward[i], ackLock, t)
	fi
}

#ifdef BROKEN_LOCK
#define may_take(i, t) true
#else
#define may_take(i, t) (agent[i].lock == unlocked || agent[i].txid == t)
#endif

inline lock_requested(i, t)
{
	if
	:: RIGHT(t) == i -> lock_at_right_anchor(i, t)
	:: RIGHT(t) != i && may_take(i, t) && unsettled(i, t) -> send(leftward[i], nackLock, t)
	:: RIGHT(t) != i && may_take(i, t) && !unsettled(i, t) ->
		agent[i].held = (agent[i].held == t -> 0 : agent[i].held);
		agent[i].lock = (agent[i].lock == unlocked -> lockPending : agent[i].lock);
		agent[i].txid = t;
		send(rightward[i], requestLock, t)
	:: RIGHT(t) != i && !may_take(i, t) && agent[i].lock == lockPending && (!agent[i].held || agent[i].held == t) ->
		agent[i].held = t
	:: RIGHT(t) != i && !may_take(i, t) && (agent[i].lock != lockPending || (agent[i].held && agent[i].held != t)) ->
		send(leftward[i], nackLock, t)
	fi
}

inline lock_answered(i, message, t)
{
	if
	:: LEFT(t) == i && outcome[t] == asking ->
		if
		:: message == ackLock ->
			agent[i].lock = locked;
			outcome[t] = won
		:: else ->
			agent[i].lock = unlocked;
			outcome[t] = lost
		fi;
		held_refuse(i)
	:: LEFT(t) != i && agent[i].lock != unlocked && agent[i].txid == t ->
		if
		:: message == ackLock -> agent[i].lock = locked
		:: else -> agent[i].lock = unlocked
		fi;
#ifdef BROKEN_NACK
		if
		:: message == ackLock -> send(leftward[i], message, t)
		:: else
		fi;
#else
		send(leftward[i], message, t);
#endif
		held_refuse(i)
	:: else /* stale */
	fi
}

inline release_arrived(i, t)
{
	if
	:: RIGHT(t) == i && (agent[i].record == t || agent[i].done == t) ->
		agent[i].record = (agent[i].record == t -> 0 : agent[i].record);
		agent[i].done = t;
		send(leftward[i], ackRelease, t)
	:: RIGHT(t) != i && agent[i].txid == t -> send(rightward[i], release, t)
	:: else /* stale */
	fi
}

inline release_answered(i, t)
{
	if
	:: LEFT(t) == i && outcome[t] == won ->
		agent[i].lock = unlocked;
		outcome[t] = over
	:: LEFT(t) != i && agent[i].txid == t ->
		agent[i].lock = unlocked;
		send(leftward[i], ackRelease, t)
	:: else /* stale */
	fi
}

/* The left anchor begins: it takes its own lock, or is refused at once. */
inline begin(i, t)
{
	if
	:: agent[i].lock == unlocked ->
		agent[i].lock = lockPending;
		agent[i].txid = t;
		outcome[t] = asking;
		send(rightward[i], requestLock, t)
	:: else -> outcome[t] = lost
	fi
}

/* One guard for each message of each transaction: the network may deliver them in any order. */
#define FROM_LEFT(message, t)  i > 0 && rightward[i - 1]??[message, t] -> rightward[i - 1]??message, t
#define FROM_RIGHT(message, t) i < HOSTS - 1 && leftward[i + 1]??[message, t] -> leftward[i + 1]??message, t

/* What a daemon does when nothing has come for a while: repeats, and leases of anchors that have gone run out.  It
 * repeats no more often than messages get lost, or a request that nobody answers would look alive for ever. */
#define QUIET timeout
#define AGAIN(t) timeout && repeats[t] > 0

proctype host(byte i)
{
end:
	do
	:: atomic { FROM_LEFT(requestLock, 1); lock_requested(i, 1) }
	:: atomic { FROM_LEFT(requestLock, 2); lock_requested(i, 2) }
	:: atomic { FROM_RIGHT(ackLock, 1); lock_answered(i, ackLock, 1) }
	:: atomic { FROM_RIGHT(ackLock, 2); lock_answered(i, ackLock, 2) }
	:: atomic { FROM_RIGHT(nackLock, 1); lock_answered(i, nackLock, 1) }
	:: atomic { FROM_RIGHT(nackLock, 2); lock_answered(i, nackLock, 2) }
	:: atomic { FROM_LEFT(release, 1); release_arrived(i, 1) }
	:: atomic { FROM_LEFT(release, 2); release_arrived(i, 2) }
	:: atomic { FROM_RIGHT(ackRelease, 1); release_answered(i, 1) }
	:: atomic { FROM_RIGHT(ackRelease, 2); release_answered(i, 2) }
	:: atomic { LEFT1 == i && outcome[1] == idle -> begin(i, 1) }
	:: atomic { LEFT2 == i && outcome[2] == idle -> begin(i, 2) }
	/* the winner has work to do until the other has been told */
	:: atomic { LEFT1 == i && outcome[1] == won && decided(2) && !released[1] -> released[1] = true; send(rightward[i], release, 1) }
	:: atomic { LEFT2 == i && outcome[2] == won && decided(1) && !released[2] -> released[2] = true; send(rightward[i], release, 2) }
	:: atomic { AGAIN(1) && LEFT1 == i && outcome[1] == asking -> repeats[1]--; send(rightward[i], requestLock, 1) }
	:: atomic { AGAIN(2) && LEFT2 == i && outcome[2] == asking -> repeats[2]--; send(rightward[i], requestLock, 2) }
	:: atomic { AGAIN(1) && LEFT1 == i && released[1] && outcome[1] == won -> repeats[1]--; send(rightward[i], release, 1) }
	:: atomic { AGAIN(2) && LEFT2 == i && released[2] && outcome[2] == won -> repeats[2]--; send(rightward[i], release, 2) }
	:: atomic { QUIET && agent[i].lock != unlocked && !active(agent[i].txid) -> agent[i].lock = unlocked }
	:: atomic { QUIET && agent[i].record && !active(agent[i].record) -> agent[i].record = 0 }
	od
}

/* Of contending left anchors exactly one wins; those whose segments do not overlap do not disturb each other.  And in the
 * end, which must be reached, nothing is left. */
active proctype judge()
{
	atomic {
		decided(1) && decided(2) ->
		assert(!(OVERLAP && succeeded(1) && succeeded(2)));
		assert(OVERLAP || (succeeded(1) && succeeded(2)));
		assert(succeeded(1) || succeeded(2))
	}
	ended(1) && ended(2) && CLEAN(0) && CLEAN(1) && CLEAN(2) && CLEAN(3)
}

init {
	byte i;

	atomic {
		outcome[1] = idle;
		outcome[2] = idle;
		do
		:: i < 4 -> agent[i].lock = unlocked; i++
		:: else -> break
		od;
		i = 0;
		do
		:: i < HOSTS -> run host(i); i++
		:: else -> break
		od
	}
}
