/* SPDX-License-Identifier: Apache-2.0 */
/* Why nothing here is searched with partial-order reduction: two agents change a variable of C that Spin stores but does
 * not see used.  Each reads the lock and takes it a moment later; both can have it.  Reduction takes the steps of different
 * processes for independent, tries one order, and finds nothing (tests/model/test_core.py). */
c_decl {
	int owner;              /* of a lock: an agent, 0 nobody */
};
c_track "&owner" "sizeof(int)";

byte has;

proctype agent(byte me)
{
	bool free;

	c_code { Pagent->free = owner == 0; };
	if
	:: free ->
		c_code { owner = Pagent->me; };
		has++
	:: else
	fi;
	assert(has < 2)
}

init {
	atomic {
		run agent(1);
		run agent(2)
	}
}
