/* The same as the other one, by the longest name that the kernel takes. */
#include "nvidia_drm.c"
