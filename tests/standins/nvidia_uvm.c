/* Stands in for NVIDIA's module of this name: beside nvidia_modeset, its major number is any. */
#include "standin.h"
#include <linux/fs.h>

static int major;

static const struct file_operations files = { .owner = THIS_MODULE };

static int __init begin(void)
{
	nvidia_standin_used();
	major = __register_chrdev(0, 0, 2, "nvidia-uvm", &files);
	return min(major, 0);
}

static void __exit end(void)
{
	__unregister_chrdev(major, 0, 2, "nvidia-uvm");
}

module_init(begin);
module_exit(end);
MODULE_DESCRIPTION("stand-in for nvidia_uvm");
