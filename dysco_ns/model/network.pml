/* SPDX-License-Identifier: Apache-2.0 */
/* Two paths of wires and middleboxes.  A wire is first in, first out, and as slow as it likes.  A middlebox is as strict
 * as a firewall: it follows both streams from their first byte on. */

#define BOXES(path) (path == 0 -> OLD_BOXES : NEW_BOXES)
#define HOPS (1 + (OLD_BOXES > NEW_BOXES -> OLD_BOXES : NEW_BOXES))
#if OLD_BOXES > NEW_BOXES
#define WIRES (4 * (1 + OLD_BOXES))
#else
#define WIRES (4 * (1 + NEW_BOXES))
#endif
#define WIRE(path, way, hop)  ((2 * (path) + (way)) * HOPS + (hop))      /* way 0: rightward; hop 0: the leftmost */
#define AT(path, way, i)      WIRE(path, way, (i == 0 -> 0 : BOXES(path)))       /* the wire at anchor i */

mtype = { segment, SYN, SYN_ACK };
chan wire[WIRES] = [CAPACITY] of { mtype, byte, byte, byte, byte, byte, byte };

byte begun;             /* reconfigurations so far */
byte losses = LOSSES;
byte repeats = REPEATS; /* what is lost, or dropped by a host, may be repeated: so often */

#define put(i, path, type, seq, length, acks, tsval, tsecr, byte_) \
	assert(nfull(wire[AT(path, i, i)])); \
	wire[AT(path, i, i)]!type(seq, length, acks, tsval, tsecr, byte_)
#define GET(w)   wire[w]?kind, s_seq, s_length, s_ack, s_tsval, s_tsecr, s_byte
#define PASS(w)  wire[w]!kind, s_seq, s_length, s_ack, s_tsval, s_tsecr, s_byte
#define SILENT_TO(path, way) (empty(wire[WIRE(path, way, 0)]) && empty(wire[WIRE(path, way, HOPS - 1)]) && \
			      empty(wire[WIRE(path, way, HOPS / 2)]))     /* three hops at most */
#define SILENT(path) (SILENT_TO(path, 0) && SILENT_TO(path, 1))

/* The stream of direction `way`, in the numbers of the middlebox's left side. */
inline watch(way)
{
	if
	:: kind == segment ->
		assert(s_seq <= next[way] || losses < LOSSES);  /* no gap, unless one got lost */
		assert(s_seq + 1 >= start[way]);
		assert(s_ack <= next[1 - way]);                 /* no acknowledgment of what has not passed */
		next[way] = MAX(next[way], s_seq + s_length)
	:: kind != segment && born[way] != begun ->             /* not one sent again */
		born[way] = begun;
		start[way] = s_seq + 1;
		next[way] = s_seq + 1;
		adds = 0;
		adds_back = 0
	:: else
	fi
}

proctype middlebox(byte path; byte place)
{
	byte start[2], next[2], adds, adds_back;
	byte born[2];   /* in which reconfiguration; 0: with the session */

	d_step {
		if
		:: path == 0 && place == 0 -> adds = DELTA; adds_back = DELTA_BACK
		:: else
		fi;
		start[0] = 1 + (path == 0 && place > 0 -> DELTA : 0);
		start[1] = 1 + adds_back;
		next[0] = start[0];
		next[1] = start[1]
	}
end:
	do
	:: d_step {
		nempty(wire[WIRE(path, 0, place)]) && nfull(wire[WIRE(path, 0, place + 1)]) ->
		GET(WIRE(path, 0, place));
		watch(0);
		s_seq = s_seq + adds;
		s_ack = s_ack - adds_back;
		PASS(WIRE(path, 0, place + 1))
	   }
	:: d_step {
		nempty(wire[WIRE(path, 1, place + 1)]) && nfull(wire[WIRE(path, 1, place)]) ->
		GET(WIRE(path, 1, place + 1));
		s_seq = s_seq + adds_back;
		s_ack = s_ack - adds;
		watch(1);
		PASS(WIRE(path, 1, place))
	   }
	od
}

proctype lossy(byte w)
{
end:
	do
	:: d_step { losses > 0 && nempty(wire[w]) -> GET(w); losses--; repeats = repeats + REPEATS }
	od
}
