/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TRACE_H
#define TRACE_H
#include <stddef.h>

#include "port.h"

void trace_message(const char *verb, const u8 *frame, u32 length);

#endif
