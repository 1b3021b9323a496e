/* Stands in for a module that cannot be unloaded: it has no exit, and /proc/modules says [permanent]. */
#include "standin.h"

static int __init begin(void)
{
	nvidia_standin_used();
	return 0;
}

module_init(begin);
MODULE_DESCRIPTION("stand-in for nvidia_peermem, permanent");
