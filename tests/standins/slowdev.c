/* A driver, not of a GPU, for QEMU's edu devices: it takes long to let one go, or for ever. */
#include "standin.h"
#include <linux/delay.h>
#include <linux/pci.h>

static uint remove_ms;
module_param(remove_ms, uint, 0444);
MODULE_PARM_DESC(remove_ms, "a device's remove takes so long");
static char *hang_at = "";
module_param(hang_at, charp, 0444);
MODULE_PARM_DESC(hang_at, "the devices whose remove never ends");

static int probe(struct pci_dev *device, const struct pci_device_id *id)
{
	return 0;
}

static void remove(struct pci_dev *device)
{
	pr_info("slowdev: %s goes\n", pci_name(device));
	if (strstr(hang_at, pci_name(device)))
		hang("remove");
	msleep(remove_ms);
	pr_info("slowdev: %s is gone\n", pci_name(device));
}

static const struct pci_device_id ids[] = { { PCI_DEVICE(0x1234, 0x11e8) }, {} };

static struct pci_driver slowdev = {
	.name = "slowdev",
	.id_table = ids,
	.probe = probe,
	.remove = remove,
};

module_pci_driver(slowdev);
MODULE_DESCRIPTION("devices that are slow to go");
