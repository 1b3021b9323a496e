#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
use super::choice::Because;
use super::environment::without;
use super::menu::{Boots, Device, Entry, File, Linux, ScriptError};
use super::*;

const BOOT: &str = "0f0e0d0c-1111-2222-3333-444455556666";

/// Returns the head that grub-mkconfig gives every grub.cfg, with the default of /etc/default/grub.
fn header(default: &str) -> String {
    format!(
        r#"
### BEGIN 00_header ###
if [ -s $prefix/grubenv ]; then
  set have_grubenv=true
  load_env
fi
if [ "${{next_entry}}" ] ; then
   set default="${{next_entry}}"
   set next_entry=
   save_env next_entry
   set boot_once=true
else
   set default="{default}"
fi
if [ x"${{feature_menuentry_id}}" = xy ]; then
  menuentry_id_option="--id"
else
  menuentry_id_option=""
fi
export menuentry_id_option
if [ "${{prev_saved_entry}}" ]; then
  set saved_entry="${{prev_saved_entry}}"
  save_env saved_entry
  set boot_once=true
fi
function savedefault {{
  if [ -z "${{boot_once}}" ]; then
    saved_entry="${{chosen}}"
    save_env saved_entry
  fi
}}
function load_video {{
  if [ x$feature_all_video_module = xy ]; then
    insmod all_video
  else
    insmod vbe
  fi
}}
if [ x$feature_default_font_path = xy ] ; then
   font=unicode
else
   font="/usr/share/grub/unicode.pf2"
fi
if loadfont $font ; then
  set gfxmode=auto
  load_video
  insmod gfxterm
  set locale_dir=$prefix/locale
fi
terminal_output gfxterm
if [ "${{recordfail}}" = 1 ] ; then
  set timeout=30
else
  if [ x$feature_timeout_style = xy ] ; then
    set timeout_style=menu
    set timeout=5
  fi
fi
### END ###
"#
    )
}

/// Returns an entry as Debian's `10_linux` writes it.
fn linux(title: &str, id: &str, version: &str, options: &str) -> String {
    format!(
        r"
menuentry '{title}' --class debian --class gnu-linux --class os $menuentry_id_option '{id}' {{
	load_video
	insmod gzio
	if [ x$grub_platform = xxen ]; then insmod xzio; insmod lzopio; fi
	insmod part_gpt
	insmod ext2
	set root='hd0,gpt2'
	if [ x$feature_platform_search_hint = xy ]; then
	  search --no-floppy --fs-uuid --set=root --hint-bios=hd0,gpt2 --hint-efi=hd0,gpt2 {BOOT}
	else
	  search --no-floppy --fs-uuid --set=root {BOOT}
	fi
	echo	'Loading Linux {version} ...'
	linux	/vmlinuz-{version} root=/dev/vda3 ro {options}
	echo	'Loading initial ramdisk ...'
	initrd	/ucode.img /initrd.img-{version}
}}
"
    )
}

/// Returns the menu of a Debian with two kernels: a simple entry, and a submenu with the others.
fn debian(default: &str) -> String {
    let simple = linux("Debian GNU/Linux", "gnulinux-simple-r", "6.12", "quiet");
    let new = linux("Debian GNU/Linux, with Linux 6.12", "gnulinux-6.12-advanced-r", "6.12", "quiet");
    let old = linux("Debian GNU/Linux, with Linux 6.1", "gnulinux-6.1-advanced-r", "6.1", "quiet");
    format!(
        "{}{simple}submenu 'Advanced options for Debian GNU/Linux' $menuentry_id_option 'gnulinux-advanced-r' {{\n\
         {new}{old}}}\n{}",
        header(default),
        "
if [ \"$grub_platform\" = \"efi\" ]; then
	fwsetup --is-supported
	if [ \"$?\" = 0 ]; then
		menuentry 'UEFI Firmware Settings' $menuentry_id_option 'uefi-firmware' {
			fwsetup
		}
	fi
fi
if [ -f  ${config_directory}/custom.cfg ]; then
  source ${config_directory}/custom.cfg
elif [ -z \"${config_directory}\" -a -f  $prefix/custom.cfg ]; then
  source $prefix/custom.cfg
fi
"
    )
}

fn grubenv(lines: &str) -> Vec<u8> {
    let mut block = format!("# GRUB Environment Block\n{lines}").into_bytes();
    block.resize(1024, b'#');
    block
}

fn read(config: &str, lines: &str) -> Config {
    let environment = grubenv(lines);
    let files = MenuFiles {
        config: config.as_bytes(),
        environment: Some(&environment),
        platform: Some("pc"),
        ..MenuFiles::default()
    };
    Config::read(&files).unwrap()
}

fn plain(config: &str) -> Result<Config, Wrong> {
    Config::read(&MenuFiles { config: config.as_bytes(), ..MenuFiles::default() })
}

/// Returns the result of the first entry, if its block has these commands.
fn booted(commands: &str) -> Result<Linux, Wrong> {
    let config = plain(&format!("menuentry 'the title' {{\n{commands}\n}}")).unwrap();
    match config.entries(&[]).remove(0).boots {
        Boots::Linux(linux) => Ok(linux),
        Boots::Refused(wrong) => Err(wrong),
        Boots::Bls(_) => panic!(),
    }
}

fn next(config: &Config) -> (Vec<usize>, Because) {
    let next = config.next(&[]).unwrap();
    (next.place, next.because)
}

#[test]
fn debians_menu_is_read_whole() {
    let config = read(&debian("0"), "");
    let entries = config.entries(&[]);
    let places: Vec<_> = entries.iter().map(Entry::numbers).collect();
    assert_eq!(places, ["0", "1>0", "1>1"]);
    let old = &entries[2];
    assert_eq!(old.id(), "gnulinux-advanced-r>gnulinux-6.1-advanced-r");
    assert_eq!(old.title(), "Advanced options for Debian GNU/Linux>Debian GNU/Linux, with Linux 6.1");
    let on_boot = |path: &str| File { device: Device::Uuid(BOOT.to_owned()), path: path.to_owned() };
    assert_eq!(
        old.boots,
        Boots::Linux(Linux {
            kernel: on_boot("/vmlinuz-6.1"),
            initrds: vec![on_boot("/ucode.img"), on_boot("/initrd.img-6.1")],
            options: "root=/dev/vda3 ro quiet".to_owned(),
            devicetree: None,
            in_default_subvolume: false,
        })
    );
    assert!(entries.iter().all(|entry| entry.maybe.is_none()));
}

#[test]
fn the_default_is_found_by_number_title_and_id_through_submenus() {
    for (default, place) in [
        ("0", vec![0]),
        ("1>1", vec![1, 1]),
        ("1>0", vec![1, 0]),
        // A submenu alone means its first entry.
        ("1", vec![1, 0]),
        ("gnulinux-simple-r", vec![0]),
        ("gnulinux-advanced-r>gnulinux-6.1-advanced-r", vec![1, 1]),
        ("gnulinux-advanced-r>1", vec![1, 1]),
        ("Advanced options for Debian GNU/Linux>Debian GNU/Linux, with Linux 6.1", vec![1, 1]),
    ] {
        let because = if default == "1" { Because::First } else { Because::Default };
        assert_eq!(next(&read(&debian(default), "")), (place, because), "{default}");
    }
    for default in ["nothing", "7", "", "gnulinux-6.1-advanced-r"] {
        assert_eq!(next(&read(&debian(default), "")), (vec![0], Because::First), "{default}");
    }
    let beyond = read(&debian("gnulinux-advanced-r>nothing"), "");
    assert_eq!(next(&beyond), (vec![1, 0], Because::First));
}

#[test]
fn a_one_shot_entry_comes_before_the_saved_one_and_that_before_the_written_one() {
    let saved = debian("${saved_entry}");
    assert_eq!(next(&read(&saved, "saved_entry=1>1\n")), (vec![1, 1], Because::Saved));
    assert_eq!(next(&read(&saved, "saved_entry=1>1\nnext_entry=0\n")), (vec![0], Because::OneShot));
    assert_eq!(next(&read(&saved, "saved_entry=1>1\nnext_entry=\n")), (vec![1, 1], Because::Saved));
    assert_eq!(next(&read(&saved, "")), (vec![0], Because::First));
    assert_eq!(next(&read(&debian("0"), "saved_entry=1>1\n")), (vec![0], Because::Default));
    let block = grubenv("saved_entry=1>1\nnext_entry=0\n");
    let consumed = without(&block, "next_entry").unwrap();
    let files = MenuFiles { config: saved.as_bytes(), environment: Some(&consumed), ..MenuFiles::default() };
    assert_eq!(next(&Config::read(&files).unwrap()), (vec![1, 1], Because::Saved));
}

#[test]
fn without_grubenv_nothing_is_saved() {
    let files = MenuFiles { config: debian("${saved_entry}").leak().as_bytes(), ..MenuFiles::default() };
    assert_eq!(next(&Config::read(&files).unwrap()), (vec![0], Because::First));
}

#[test]
fn a_title_with_a_mark_is_named_with_two() {
    let config =
        "set default='a>>b>c'\nsubmenu 'a>b' {\n menuentry x { linux /x; }\n menuentry c { linux /c; }\n}";
    let config = plain(config).unwrap();
    assert_eq!(next(&config), (vec![0, 1], Because::Default));
    assert_eq!(config.entries(&[])[1].title(), "a>>b>c");
}

#[test]
fn a_number_begins_where_upstreams_grub_sees_one_and_fedoras_looks_for_names_first() {
    let entries = "menuentry a { linux /a; }\nmenuentry b --id 1f { linux /b; }\nmenuentry c { linux /c; }\n";
    let at = |default: &str, before: &str| {
        plain(&format!("{before}set default='{default}'\n{entries}")).unwrap().next(&[])
    };
    for fedora in ["insmod increment\n", "insmod blscfg\n"] {
        // "1f" begins with a number.
        assert_eq!(at("2f", "").unwrap().place, [2]);
        assert_eq!(at("1f", "").unwrap().place, [1]);
        assert_eq!(at("1f", fedora).unwrap().place, [1]);
        assert_eq!(at("2", fedora).unwrap().place, [2]);
        assert_eq!(at("2f", fedora), Err(Undecided::Versions("'2f'".to_owned())));
        assert_eq!(at("9f", fedora).unwrap().because, Because::First);
    }
}

#[test]
fn fallbacks_are_told_beside_what_is_next() {
    let config = format!("{}\nset fallback=\"1 0 9\"", debian("0"));
    assert_eq!(read(&config, "").next(&[]).unwrap().fallbacks, [1, 0]);
}

#[test]
fn options_reach_the_kernel_as_grub_writes_them() {
    for (written, options) in [
        ("a=1  b", "a=1 b"),
        ("dyndbg=\"file a.c +p\" q", "\"dyndbg=file a.c +p\" q"),
        ("'a b'", "\"a b\""),
        ("x=\\\"y\\\" it\\'s", "x=\\\"y\\\" it\\'s"),
        ("a\\\\b", "a\\\\b"),
        ("a#b # c", "a#b"),
        ("$none a${none}b", "ab"),
        ("${extra}", "one two"),
        ("\"${extra}\"", "\"one two\""),
        ("x$extra", "xone two"),
        ("$1", "the title"),
        ("a\\\n b", "a b"),
        ("i915.modeset=0,1 x[1]=(2)", "i915.modeset=0,1 x[1]=(2)"),
    ] {
        let linux = booted(&format!("set extra='one two'\nset root=(hd0,1)\nlinux /k {written}"));
        assert_eq!(linux.unwrap().options, options, "{written}");
    }
    let hexadecimal = booted("linux /k root='/dev/a\\x2db'").unwrap_err();
    assert!(matches!(hexadecimal.why, ScriptError::Hexadecimal(_)));
}

#[test]
fn paths_are_on_the_device_that_grub_would_read() {
    for (commands, device, path) in [
        ("linux /k", Device::Grub, "/k"),
        ("set root='hd0,gpt2'\nlinux /k", Device::Named("hd0,gpt2".into()), "/k"),
        ("set root=(hd0,1)\nlinux /k", Device::Named("hd0,1".into()), "/k"),
        ("search --fs-uuid --set=root 1-2\nlinux /k", Device::Uuid("1-2".into()), "/k"),
        ("search --no-floppy --fs-uuid --set 1-2\nlinux /k", Device::Uuid("1-2".into()), "/k"),
        ("search --set=root --label BOOT\nlinux /k", Device::Label("BOOT".into()), "/k"),
        ("search --set=root --label 'MY BOOT'\nlinux ($root)/k", Device::Label("MY BOOT".into()), "/k"),
        ("search --file /id --set\nlinux /k", Device::Holds("/id".into()), "/k"),
        ("search.fs_uuid 1-2 root hd0,gpt2\nlinux /k", Device::Uuid("1-2".into()), "/k"),
        ("search -u -s boot 1-2\nlinux ($boot)/k", Device::Uuid("1-2".into()), "/k"),
        ("linux (hd1)/k", Device::Named("hd1".into()), "/k"),
        ("linux ($root)/a/k", Device::Grub, "/a/k"),
        ("loopback loop0 /x.img\nset root=(loop0)\nlinuxefi /k", Device::Named("loop0".into()), "/k"),
    ] {
        assert_eq!(booted(commands).unwrap().kernel, File { device, path: path.into() }, "{commands}");
    }
    for commands in ["linux k", "linux (hd0)+1", "linux $prefix/k", "linux $none", "linux"] {
        assert!(booted(commands).is_err(), "{commands}");
    }
}

#[test]
fn a_second_kernel_takes_the_first_ones_place_and_a_second_initrd_too() {
    let linux = booted("linux /a 1\ninitrd /b\nlinux /c 2\ninitrd /d\ninitrd /e /f\ndevicetree /g").unwrap();
    assert_eq!((linux.kernel.path.as_str(), linux.options.as_str()), ("/c", "2"));
    let initrds: Vec<_> = linux.initrds.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(initrds, ["/e", "/f"]);
    assert_eq!(linux.devicetree.unwrap().path, "/g");
}

#[test]
fn what_an_entry_boots_instead_is_named_and_the_others_stay() {
    for (commands, says) in [
        (
            "insmod chain\nchainloader /EFI/x.efi",
            "line 3: the entry starts no Linux kernel, but 'chainloader'",
        ),
        ("drivemap -s (hd0) $root\nchainloader +1", "'chainloader'"),
        ("multiboot2 /xen.gz\nmodule2 /vmlinuz", "'module2'"),
        ("echo hello", "starts no kernel"),
        ("initrd /a\nlinux /b\ninitrd newc:x:/a", "'newc:x:/a' is not a file's path"),
        ("initrd /a", "an initrd stands before its kernel"),
        ("acpi /tables\nlinux /k", "line 2: the command 'acpi' is not understood"),
        ("configfile /boot/other.cfg", "'configfile'"),
    ] {
        let wrong = booted(commands).unwrap_err().to_string();
        assert!(wrong.contains(says), "{commands:?}: {wrong}");
    }
}

#[test]
fn a_condition_that_only_grub_can_judge_counts_where_it_makes_a_difference() {
    let same = "if loadfont x; then set a=1; else set a=1; fi\nlinux /k $a\nif sleep 1; then set b=2; fi";
    assert_eq!(booted(same).unwrap().options, "1");
    for (commands, line) in [
        ("\nif hwmatch x 3; then set vt_handoff=vt.handoff=7; fi\nlinux /k $vt_handoff", 3),
        ("if [ -e /x ]; then linux /a; else linux /b; fi", 2),
        ("linux /a\n\nif [ -e /x ]; then\ninitrd /b\nfi", 4),
        ("if [ $grub_platform = efi ]; then set root=a; fi\nlinux /a", 2),
    ] {
        let wrong = booted(commands).unwrap_err();
        assert_eq!((wrong.line, wrong.why), (line, ScriptError::Condition), "{commands}");
    }
    assert_eq!(
        booted("linux /k $grub_cpu").unwrap_err().to_string(),
        "grub.cfg, line 2: only GRUB can tell the value of $grub_cpu"
    );
    let default = plain("if keystatus --shift; then\nset default=1\nfi\nmenuentry a { linux /a; }").unwrap();
    let undecided = default.next(&[]).unwrap_err().to_string();
    assert!(undecided.contains("grub.cfg, line 1: only GRUB can judge this condition"), "{undecided}");
}

#[test]
fn an_entry_that_may_be_there_makes_unsure_only_what_comes_after_it() {
    let config = |default: &str| {
        let entries = "menuentry a { linux /a; }\nif [ -e /x ]; then\nmenuentry m { linux /m; }\nfi\n\
                       menuentry b { linux /b; }\n";
        plain(&format!("set default={default}\n{entries}")).unwrap()
    };
    assert_eq!(next(&config("0")).0, [0]);
    assert_eq!(next(&config("a")).0, [0]);
    assert_eq!(next(&config("b")).0, [2]);
    assert_eq!(next(&config("c")), (vec![0], Because::First));
    for default in ["1", "2", "m"] {
        let undecided = config(default).next(&[]).unwrap_err();
        assert!(matches!(&undecided, Undecided::Maybe(wrong) if wrong.line == 3), "{undecided}");
    }
    assert_eq!(config("0").entries(&[])[1].maybe.as_ref().unwrap().line, 3);
}

#[test]
fn what_only_the_firmware_can_tell_makes_its_setup_unsure_and_nothing_else() {
    let on = |platform, default| {
        let menu = debian(default);
        Config::read(&MenuFiles { config: menu.as_bytes(), platform: Some(platform), ..MenuFiles::default() })
            .unwrap()
    };
    for platform in ["pc", "efi"] {
        assert_eq!(next(&on(platform, "0")), (vec![0], Because::Default));
        assert_eq!(next(&on(platform, "gnulinux-advanced-r>gnulinux-6.1-advanced-r")).0, [1, 1]);
    }
    assert_eq!(on("pc", "0").entries(&[]).len(), 3);
    let setup = &on("efi", "0").entries(&[])[3];
    assert!(matches!(&setup.boots, Boots::Refused(wrong) if wrong.to_string().contains("fwsetup")));
    for default in ["2", "uefi-firmware"] {
        assert!(matches!(on("efi", default).next(&[]), Err(Undecided::Maybe(_))));
    }
    // Without the option the command enters the setup, and is refused.
    assert!(plain("fwsetup\nmenuentry a { linux /a; }\n").is_err());
}

#[test]
fn a_submenu_sees_what_is_exported_and_no_more() {
    let menu = "set a=1\nset b=2\nexport b\nsubmenu s {\nset c=3\nmenuentry x {\nlinux /k $a $b $c\n}\n}\n\
                menuentry y {\nlinux /k $a $b $c\n}";
    let options: Vec<_> = plain(menu).unwrap().entries(&[]).into_iter().map(|entry| entry.boots).collect();
    let seen = |boots: &Boots| if let Boots::Linux(linux) = boots { linux.options.clone() } else { panic!() };
    assert_eq!((seen(&options[0]).as_str(), seen(&options[1]).as_str()), ("2 3", "1 2"));
}

#[test]
fn opensuses_and_archs_own_shapes_are_read() {
    let config = r#"
set btrfs_relative_path="y"
export btrfs_relative_path
if [ -f ${config_directory}/grubenv ]; then
  load_env -f ${config_directory}/grubenv
elif [ -s $prefix/grubenv ]; then
  load_env
fi
if [ "${env_block}" ] ; then
  set env_block="(${root})${env_block}"
  export env_block
  load_env -f "${env_block}"
fi
set default="${saved_entry}"
if [ x${boot_once} = xtrue ]; then
  set timeout=0
fi
if [ -n "$extra_cmdline" ]; then
  submenu "Bootable snapshot #$snapshot_num" {
    menuentry "If OK, roll back" { true; }
  }
fi
menuentry 'openSUSE' --class opensuse --unrestricted --id 'suse' {
	set gfxpayload=keep
	linux	/boot/vmlinuz root=UUID=1 ${extra_cmdline} splash=silent
	initrd	/boot/initrd
}
if [ ! -e "${prefix}/grub-btrfs.cfg" ]; then
echo ""
else
submenu 'snapshots' {
    configfile "${prefix}/grub-btrfs.cfg"
}
fi
if [ -f  "/.snapshots/grub-snapshot.cfg" ]; then
  source "/.snapshots/grub-snapshot.cfg"
fi
"#;
    let config_at = |lines| read(config, lines);
    let entries = config_at("").entries(&[]);
    let Boots::Linux(linux) = &entries[0].boots else { panic!() };
    assert!(linux.in_default_subvolume && linux.options == "root=UUID=1 splash=silent", "{linux:?}");
    assert_eq!(entries.len(), 2);
    assert_eq!(next(&config_at("saved_entry=suse\n")), (vec![0], Because::Saved));
    let unread = config_at("saved_entry=snapshot-7\n").next(&[]).unwrap_err();
    assert!(unread.to_string().contains("grub-snapshot.cfg' adds to the menu is not read"), "{unread}");
    let block = grubenv("env_block=512+1\n");
    let files = MenuFiles { config: config.as_bytes(), environment: Some(&block), ..MenuFiles::default() };
    let wrong = Config::read(&files).unwrap_err();
    assert!(wrong.line == 12 && wrong.to_string().contains("'(root)512+1'"), "{wrong:?}");
}

#[test]
fn entries_of_loader_entries_stand_where_blscfg_does() {
    let config = r#"
set pager=1
if [ -f ${config_directory}/grubenv ]; then
  load_env -f ${config_directory}/grubenv
elif [ -s $prefix/grubenv ]; then
  load_env
fi
set default="${saved_entry}"
search --no-floppy --fs-uuid --set=root 1-2
insmod increment
if [ -n "${boot_counter}" -a "${boot_success}" = "0" ]; then
  if  [ "${boot_counter}" = "0" -o "${boot_counter}" = "-1" ]; then
    set default=1
    set boot_counter=-1
  else
    decrement boot_counter
  fi
  save_env boot_counter
fi
if [ -z "${kernelopts}" ]; then
  set kernelopts="root=/dev/vda2 ro quiet"
fi
insmod blscfg
blscfg
menuentry 'last' { linux /k; }
"#;
    let bls = [
        Named { id: "6b27-6.17", title: "Fedora (6.17)" },
        Named { id: "6b27-6.16", title: "Fedora (6.16)" },
    ];
    let at = |lines: &str| read(config, lines).next(&bls).unwrap();
    // The id begins with a number, and Fedora's GRUB looks for ids first.
    assert_eq!(at("saved_entry=6b27-6.16\n").place, [1]);
    assert_eq!(at("saved_entry=Fedora (6.16)\n").because, Because::Saved);
    assert_eq!(at("saved_entry=last\n").place, [2]);
    assert_eq!(at("saved_entry=6b27-6.17\nboot_success=0\nboot_counter=0\n").place, [1]);
    assert_eq!(at("saved_entry=6b27-6.17\nboot_success=0\nboot_counter=2\n").place, [0]);
    let config = read(config, "kernelopts=root=UUID=1 ro rd.luks=\"a b\"\ntuned_params=skew_tick=1\n");
    let entries = config.entries(&bls);
    assert_eq!(entries[1].boots, Boots::Bls(1));
    assert_eq!((entries[1].numbers().as_str(), entries[2].numbers().as_str()), ("1", "2"));
    let blscfg = config.blscfg.unwrap();
    assert_eq!(blscfg.device, Device::Uuid("1-2".into()));
    assert_eq!(blscfg.variable("blsdir"), Ok(None));
    assert_eq!(
        blscfg.expand("$kernelopts $tuned_params crashkernel=256M").unwrap(),
        "root=UUID=1 ro \"rd.luks=a b\" skew_tick=1 crashkernel=256M"
    );
    assert_eq!(blscfg.expand("root=UUID=1 ro").unwrap(), "root=UUID=1 ro");
    assert_eq!(blscfg.expand("a=\\$b x").unwrap(), "a=$b x");
    assert!(blscfg.expand("a; b").is_err());
    assert!(blscfg.expand("a $grub_cpu").is_err());
}

#[test]
fn custom_cfg_is_read_where_it_is_sourced() {
    let config = debian("mine");
    let files = MenuFiles { config: config.as_bytes(), platform: Some("pc"), ..MenuFiles::default() };
    assert_eq!(next(&Config::read(&files).unwrap()).1, Because::First);
    let custom = b"menuentry 'My own' --id mine {\n linux /mine\n}\n";
    let config = Config::read(&MenuFiles { custom: Some(custom), ..files }).unwrap();
    assert_eq!(next(&config), (vec![2], Because::Default));
    let wrong = Config::read(&MenuFiles { custom: Some(b"\nzap\n"), ..files }).unwrap_err();
    assert_eq!(
        wrong.to_string(),
        "custom.cfg, line 2: the command 'zap' is not understood there; grub-mkconfig writes none"
    );
}

#[test]
fn what_is_not_understood_is_refused_with_its_line() {
    for (text, says) in [
        ("\nfrobnicate x", "line 2: the command 'frobnicate' is not understood"),
        ("for i in a; do echo $i; done", "line 1: 'for' is not understood"),
        ("source /boot/x.cfg", "'/boot/x.cfg' adds to the menu is not read"),
        ("set prefix=($root)'/boot/grub'\nconfigfile $prefix/grub.cfg", "line 2: it leads on to "),
        ("load_env -f (hd0)+1", "read from '(hd0)+1'"),
        ("linux /k", "'linux' is not understood there"),
        ("menuentry { true; }", "'menuentry' are not understood"),
        ("menuentry a --source b { true; }", "'menuentry' are not understood"),
        ("blscfg\nblscfg", "line 2: the arguments of 'blscfg'"),
        ("menuentry $grub_cpu { true; }", "$grub_cpu"),
        ("\u{1b}[2J", "not plain text"),
        ("function f {\nf\n}\nf", "too deep"),
        ("$grub_cpu", "that a variable names"),
        ("search --frob x", "'search'"),
        ("set x", "'set'"),
    ] {
        let wrong = plain(text).unwrap_err().to_string();
        assert!(wrong.contains(says), "{text:?}: {wrong}");
        assert!(!wrong.contains(char::is_control), "{wrong:?}");
    }
    assert_eq!(plain("").unwrap().next(&[]), Err(Undecided::Empty));
}

#[test]
fn a_script_that_never_comes_to_an_end_comes_to_one() {
    let doubling = format!("set a=aaaaaaaa\n{}", "set a=$a$a\n".repeat(64));
    assert_eq!(plain(&doubling).unwrap_err().why, ScriptError::TooMuch);
    let function = |n: usize| format!("function f{n} {{ {} }}\n", format!("f{};", n - 1).repeat(9));
    let calls: Vec<_> = (1..16).map(function).collect();
    let calls = format!("function f0 {{ true; }}\n{}f15", calls.concat());
    assert_eq!(plain(&calls).unwrap_err().why, ScriptError::TooMuch);
    let elifs = format!("if [ -e /a ]; then true; {}fi", "elif [ -e /a ]; then true; ".repeat(9999));
    assert_eq!(plain(&elifs).unwrap_err().why, ScriptError::TooDeep);
    let submenus = plain("function f {\nsubmenu s { f; }\n}\nf").unwrap().entries(&[]);
    assert!(
        matches!(submenus.as_slice(), [Entry { boots: Boots::Refused(wrong), .. }] if wrong.why == ScriptError::TooDeep)
    );
    let twice = "function f {\nsubmenu s { f; }\nsubmenu t { f; }\n}\nf";
    assert_eq!(plain(twice).unwrap_err().why, ScriptError::TooMuch);
}
