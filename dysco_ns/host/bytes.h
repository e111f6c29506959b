/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Agents (agent.h) for callers that know no C structures.  Frames lie in buffers of PACKET_BYTES. */
#ifndef DYSCO_HOST_BYTES_H
#define DYSCO_HOST_BYTES_H
#include "agent.h"

enum pass { PASS_EGRESS, PASS_EGRESS_PARKED, PASS_INGRESS };

/* Entries that a table can hold, and bytes of one; 0: there is no such table. */
u32 bytes_most(struct agent *a, const char *name);
u32 bytes_of_value(struct agent *a, const char *name);
/* 0: no such entry.  The key of an array is a number of 4 bytes. */
const void *bytes_get(struct agent *a, const char *name, const void *key);
int bytes_put(struct agent *a, const char *name, const void *key, const void *value);
/* The keys of all entries of a table that is no array, one after the other; how many. */
u32 bytes_keys(struct agent *a, const char *name, u8 *to);

/* A pass of a frame, in place.  Returns enum way. */
int bytes_pass(struct agent *a, enum pass pass, u8 *data, u32 *length, u64 *tag);
/* What the last pass or command has sent beside it: enum way, < 0: no more. */
int bytes_sent(struct agent *a, u8 *data, u32 *length, u64 *tag);

#endif
