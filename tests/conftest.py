import os

# Workers share two cores; the numbers of threads that matter are set by what is tested.
os.environ.setdefault("OMP_NUM_THREADS", "1")
