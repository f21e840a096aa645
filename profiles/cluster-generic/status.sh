#!/bin/sh
# Prints running, success or failed: what PBS says about the job $1. Its history of ended jobs must
# be on (job_history_enable). While PBS does not answer, nothing is known, so the job counts as
# running.
answer=$(qstat -x -f "$1" 2>&1)
case "$answer" in
*"Unknown Job"*) echo failed ;;
*"job_state = F"*"Exit_status = 0"* | *"Exit_status = 0"*"job_state = F"*) echo success ;;
*"job_state = F"*) echo failed ;;
*) echo running ;;
esac
