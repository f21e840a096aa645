"""What the Snakefile needs: resources of jobs, the lock of a study, its status and its verdict."""
