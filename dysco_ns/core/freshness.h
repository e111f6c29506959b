/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Is a transaction new here, or has somebody recorded it and plays it again?
 *
 * The upper half of a transaction id is its epoch: one more than the highest that its initiator has heard of in the session,
 * counted modulo 2^16.  An agent remembers the last transactions that have asked it for something; when it forgets one, all
 * of that epoch and of earlier ones are old.  So requests of the same epoch may come in any order, as contenders' do, and none
 * is taken twice.  An honest initiator that is behind is told the newest and tries again.
 */
#ifndef DYSCO_FRESHNESS_H
#define DYSCO_FRESHNESS_H
#include "types.h"

INLINE u32 epoch_of(u32 txid) { return txid >> 16; }
INLINE int epoch_before(u32 a, u32 b) { return (s16)(a - b) < 0; }

INLINE int transaction_known(const struct session *s, u32 txid)
{
	for (u32 i = 0; i < TRANSACTIONS; i++)
		if (s->known[i] == txid)
			return 1;
	return 0;
}

INLINE int transaction_new(const struct session *s, u32 txid)
{
	return !epoch_before(epoch_of(txid), s->old_epochs) && !transaction_known(s, txid);
}

/* Another agent has told of this transaction. */
INLINE void transaction_heard(struct session *s, u32 txid)
{
	if (epoch_before(epoch_of(s->newest), epoch_of(txid)))
		s->newest = txid;
}

/* This one has asked here. */
INLINE void transaction_note(struct session *s, u32 txid)
{
	if (transaction_known(s, txid))
		return;
	u32 *place = &s->known[s->known_next & (TRANSACTIONS - 1)], forgotten = *place;
	if (forgotten && !epoch_before(epoch_of(forgotten), s->old_epochs))
		s->old_epochs = epoch_of(forgotten) + 1;
	*place = txid;
	s->known_next++;
	transaction_heard(s, txid);
}

/* A session that a transaction has brought here: whatever was before it concerns another record. */
INLINE void transactions_begin(struct session *s, u32 txid)
{
	s->old_epochs = epoch_of(txid);
	transaction_note(s, txid);
}

#endif
