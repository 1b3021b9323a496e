/* Stands in for NVIDIA's module of this name: the top of the tower. */
#include "standin.h"

static int __init begin(void)
{
	nvidia_modeset_standin_used();
	return 0;
}

static void __exit end(void)
{
}

module_init(begin);
module_exit(end);
MODULE_DESCRIPTION("stand-in for nvidia_drm");
