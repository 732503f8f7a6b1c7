//! Volumes of pods: one module for each kind, prepared before a pod starts and removed after it is gone.
