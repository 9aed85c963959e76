/* run.h (internal) - what a run lets other rooms see of its calls. */
#ifndef WF_RUN_H
#define WF_RUN_H

#include "nets/exec.h"
#include "weft/run.h"

/* What the layers read in the calls that follow, encodes and steps, goes to the tap too; NULL: no
 * longer. The tap is the caller's and stays in place. */
void wf_run_set_tap(weft_run *r, const wf_tap *tap);

#endif
