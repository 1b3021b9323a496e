# nextkernel: `make help` lists what can be made.
.POSIX:
.DELETE_ON_ERROR:

DESTDIR =
PREFIX  = /usr/local
# systemd looks for shutdown executables here and nowhere else (systemd-shutdown(8)).
SHUTDOWN = /usr/lib/systemd/system-shutdown
# So do initramfs generators, each in a folder of its own.
DRACUT   = /usr/lib/dracut/modules.d
INITCPIO = /usr/lib/initcpio
TMPFILES = /usr/lib/tmpfiles.d
# And kernel-install(8) for what it runs.
KERNELINSTALL = /usr/lib/kernel/install.d

CARGO      = cargo
CARGO_HOME ?= $(HOME)/.cargo
HOST       = $(shell rustc -vV | sed -n 's/^host: //p')

# Where the programs lie, built; `sudo make install` finds no rustc that could tell HOST.
BUILT = target/built
# No folder of the builder's in the binaries: they are the same wherever they are built.
REMAP = --remap-path-prefix=$(CURDIR)=. --remap-path-prefix=$(CARGO_HOME)=cargo

# What comes several times in the hook's code is there once, as a function: a hundredth of it.
SMALLER = -C llvm-args=-enable-machine-outliner=always
# rustup's library for musl would add start files, and the hook has its own.
STARTS = $(if $(findstring musl,$(HOST)),-C link-self-contained=no)

UNITS = nextkernel-stage.service nextkernel-stage.path nextkernel-stage@.service nextkernel-stage@.path \
    nextkernel-restage.service nextkernel-arrived.service nextkernel-exitrd.service nextkernel-report.service

# The one that every boot starts, where a handoff asks for it; the others are off until somebody enables them.
ENABLED = nextkernel-arrived.service

# Private items are documented, too, and may be linked to.
RUSTDOC = -D warnings -A rustdoc::private_intra_doc_links

# Folders of files for what restarts many machines.
FLEETS = ansible ansible/roles/nextkernel/tasks cloud-init kubernetes

# What else both programs are built for, and what links them: Debian's gcc-aarch64-linux-gnu, gcc-riscv64-linux-gnu and
# a libc for each, libc6-dev-arm64-cross and libc6-dev-riscv64-cross.
CROSS = aarch64-unknown-linux-gnu riscv64gc-unknown-linux-gnu
LINKERS = CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
    CARGO_TARGET_RISCV64GC_UNKNOWN_LINUX_GNU_LINKER=riscv64-linux-gnu-gcc

# Man pages and completions, for install, which needs no cargo.
MANUALS = target/manuals
PAGES8 = nextkernel.8 nextkernel-hook.8
PAGES5 = nextkernel.conf.5 nextkernel-plan.5
BASH = share/bash-completion/completions
ZSH  = share/zsh/site-functions
FISH = share/fish/vendor_completions.d

# The guests' copy of what `make install` installs.
INSTALLED = target/vm/installed

all: hook tool manuals ## build both programs, the man pages and the completions

help: ## list what can be made
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' Makefile | expand -t 28

hook: ## build nextkernel-hook, the night's program
	cd src && RUSTFLAGS="$(REMAP) -C relocation-model=static $(SMALLER) $(STARTS)" $(CARGO) build --release --locked --target $(HOST) --bin nextkernel-hook
	@install -D -m 0755 -t $(BUILT) src/target/$(HOST)/release/nextkernel-hook

tool: ## build nextkernel, the day's program
	RUSTFLAGS="$(REMAP) -C target-feature=+crt-static" \
	    $(CARGO) build --release --locked --target $(HOST) --bin nextkernel
	@install -D -m 0755 -t $(BUILT) target/$(HOST)/release/nextkernel

manuals: ## write the man pages and the completions into target/manuals
	$(CARGO) run --quiet --locked -p nextkernel-manuals -- $(MANUALS)

cross: ## build both for arm64 and riscv64, into target/built/TARGET
	@for target in $(CROSS); do \
	    built="HOST=$$target BUILT=target/built/$$target"; tests/cross $$target && \
	    $(LINKERS) $(MAKE) --no-print-directory hook $$built && \
	    $(LINKERS) $(FASTER) $(MAKE) --no-print-directory tool $$built || exit 1; done

demo: need-root prepare-demo ## watch Debian go from its kernel to an updated one, in a virtual machine
	@$(MAKE) --no-print-directory guest-install
	@PATH="$$PATH:/usr/sbin:/sbin" $(CARGO) run --quiet --locked -p nextkernel-tests --bin demo

test: need-root prepare-test lint unit ## lints, unit tests, the night's properties, the main handoffs
	@$(MAKE) --no-print-directory guest-install
	$(CARGO) test --quiet --locked -p nextkernel-tests

test-all: need-root ## everything: all guests, packages, licences, a smoke of the fuzzers
	@rm -f target/vm/logs/stages target/vm/logs/summary target/vm/logs/unsteady target/vm/logs/not-tested
	@tests/stage "what must be installed" tests/prepare all
	@tests/stage "lints, unit tests, builds, and beside them the guests' images" \
	    $(MAKE) --no-print-directory -j2 images checked-and-built
	@tests/stage "all tests, in guests and without" \
	    $(CARGO) test --quiet --locked -p nextkernel-tests -- --include-ignored
	@tests/stage "fuzzers" fuzz/run 8

# The guests wait for nothing then.
images:
	@$(CARGO) run --quiet --locked -p nextkernel-tests --bin images

checked-and-built:
	@$(MAKE) --no-print-directory -j1 lint unit guest-install deny cross-where-it-can-be
	@$(MAKE) --no-print-directory -j1 deb rpm

cross-where-it-can-be:
	@if (for target in $(CROSS); do tests/cross $$target || exit 1; done); then \
	    $(MAKE) --no-print-directory cross FASTER="CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_OPT_LEVEL=1 \
	    CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16"; \
	    else rm -rf $(CROSS:%=target/built/%); echo "make: NOT TESTED: arm64 and riscv64, for the reason above" >&2; fi

deb: all ## Debian packages, into target/package: for this machine and, after `make cross`, for arm64
	packaging/debian/build

rpm: all ## the same for rpm
	packaging/rpm/build

release: deb rpm ## those, the sources, what they are made of, and the sums of all
	packaging/release

vm: need-root prepare-all ## one property in its guest: make vm TEST=name
	@$(MAKE) --no-print-directory guest-install
	$(CARGO) test --quiet --locked -p nextkernel-tests --test initramfs --test guests -- --include-ignored "$(TEST)"

mutations: need-root prepare-test ## break the product in eleven places, and see that a property notices each
	@$(MAKE) --no-print-directory guest-install
	@tests/mutations

bench: need-root prepare-test ## what staging and handing over cost, in instructions and memory
	@$(MAKE) --no-print-directory guest-install
	@$(CARGO) run --quiet --locked -p nextkernel-tests --bin bench

lint: ## formatting, clippy, rustdoc, links, layers, mutations that still apply, shellcheck
	$(CARGO) fmt --all --check
	cd src && $(CARGO) fmt --all --check
	$(CARGO) clippy --quiet --locked --all-targets
	cd src && $(CARGO) clippy --quiet --locked --all-targets
	RUSTDOCFLAGS="$(RUSTDOC)" $(CARGO) doc --quiet --locked --no-deps --document-private-items -p nextkernel --lib
	cd src && RUSTDOCFLAGS="$(RUSTDOC)" $(CARGO) doc --quiet --locked --no-deps --document-private-items --lib
	$(CARGO) test --quiet --locked -p nextkernel-tests --test documents --test layers
	cd fuzz && $(CARGO) metadata --locked --format-version 1 >/dev/null
	tests/mutations --dry-run
	shellcheck packaging/debian/build packaging/debian/*.p* packaging/rpm/build packaging/release packaging/sbom packaging/facts packaging/arrange \
	    packaging/arch/* packaging/alpine/* \
	    .ci/run fuzz/run tests/prepare tests/stage tests/mutations tests/cross tests/bios/install tests/guest/usr/lib/bed/agent \
	    units/systemd/stage-instance triggers/kernel-install/* triggers/debian/* triggers/arch/mkinitcpio-post \
	    triggers/alpine/* triggers/void/* initramfs/dracut/90nextkernel/*.sh \
	    initramfs/mkinitcpio/install/nextkernel tests/mkinitcpio/build \
	    tests/inits/build tests/inits/every/usr/lib/bed/init units/sysvinit/nextkernel units/openrc/nextkernel \
	    units/runit-void/85-nextkernel.sh units/runit-debian/90-nextkernel.sh units/s6-linux-init/rc.shutdown.final \
	    units/dinit/shutdown-hook units/finit/90-nextkernel units/procd/nextkernel units/nitro/final

unit: ## unit tests
	$(CARGO) test --quiet --locked -p nextkernel -p nextkernel-manuals
	cd src && $(CARGO) test --quiet --locked

deny: ## licences, sources and versions of every crate
	@command -v cargo-deny >/dev/null || CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=off \
	    CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 $(CARGO) install --quiet --locked cargo-deny
	for workspace in Cargo.toml src/Cargo.toml fuzz/Cargo.toml; do \
	    $(CARGO) deny --locked --manifest-path $$workspace check licenses bans sources || exit 1; done

fuzz: ## fuzz every parser: make fuzz SECONDS=600
	fuzz/run $${SECONDS:-60}

install: ## install into $(DESTDIR), below $(PREFIX)
	install -D -m 0755 $(BUILT)/nextkernel $(DESTDIR)$(PREFIX)/bin/nextkernel
	install -D -m 0755 $(BUILT)/nextkernel-hook $(DESTDIR)$(SHUTDOWN)/nextkernel
	ln -sf $(SHUTDOWN)/nextkernel $(DESTDIR)$(PREFIX)/bin/nextkernel-hook
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system
	for unit in $(UNITS); do \
	    sed -e '/^@SHUT-IN@$$/{' -e 'r units/systemd/shut-in' -e d -e '}' -e 's|@PREFIX@|$(PREFIX)|g' \
	    units/systemd/$$unit.in >$(DESTDIR)$(PREFIX)/lib/systemd/system/$$unit || exit 1; done
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system/multi-user.target.wants
	for unit in $(ENABLED); do \
	    ln -sf ../$$unit $(DESTDIR)$(PREFIX)/lib/systemd/system/multi-user.target.wants/ || exit 1; done
	install -D -m 0755 -t $(DESTDIR)$(PREFIX)/lib/nextkernel units/systemd/stage-instance packaging/arrange
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/lib/systemd/system-preset units/systemd/80-nextkernel.preset
	install -D -m 0755 -t $(DESTDIR)$(KERNELINSTALL) triggers/kernel-install/95-nextkernel.install
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/doc/nextkernel README.md LICENSE CHANGELOG.md docs/nextkernel.conf
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/doc/nextkernel/docs docs/architecture.md docs/night.md docs/faults.md docs/decisions.md docs/loaders.md docs/performance.md docs/fuzzing.md docs/boards.md docs/report.md docs/report.svg docs/fleets.md docs/updates.md
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/doc/nextkernel/docs/guides docs/guides/*.md
	for folder in $(FLEETS); do \
	    install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/doc/nextkernel/fleets/$$folder fleets/$$folder/*.y*ml || exit 1; done
	for folder in . mkinitcpio dracut initramfs-tools; do \
	    install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/doc/nextkernel/initramfs/$$folder initramfs/$$folder/README.md; done
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/doc/nextkernel/initramfs/nixos initramfs/nixos/nextkernel.nix
	install -d $(DESTDIR)$(PREFIX)/share/man/man8 $(DESTDIR)$(PREFIX)/share/man/man5
	for page in $(PAGES8); do install -m 0644 $(MANUALS)/$$page $(DESTDIR)$(PREFIX)/share/man/man8/ || exit 1; done
	for page in $(PAGES5); do install -m 0644 $(MANUALS)/$$page $(DESTDIR)$(PREFIX)/share/man/man5/ || exit 1; done
	install -D -m 0644 $(MANUALS)/nextkernel.bash $(DESTDIR)$(PREFIX)/$(BASH)/nextkernel
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/$(ZSH) $(MANUALS)/_nextkernel
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/$(FISH) $(MANUALS)/nextkernel.fish

install-dracut: ## install the hook's module for dracut
	install -D -m 0755 -t $(DESTDIR)$(DRACUT)/90nextkernel initramfs/dracut/90nextkernel/*.sh
	install -D -m 0644 -t $(DESTDIR)$(TMPFILES) initramfs/dracut/nextkernel-dracut.conf

install-mkinitcpio: ## install the hook's build hook for mkinitcpio
	install -D -m 0755 -t $(DESTDIR)$(INITCPIO)/install initramfs/mkinitcpio/install/nextkernel
	install -D -m 0644 -t $(DESTDIR)$(TMPFILES) initramfs/mkinitcpio/30-nextkernel.conf

install-debian: ## install what Debian's kernels and initramfs-tools run after an update
	install -D -m 0755 triggers/debian/kernel-postinst $(DESTDIR)/etc/kernel/postinst.d/zzz-nextkernel
	install -D -m 0755 triggers/debian/kernel-postrm $(DESTDIR)/etc/kernel/postrm.d/zzz-nextkernel
	install -D -m 0755 triggers/debian/initramfs-post-update $(DESTDIR)/etc/initramfs/post-update.d/zzz-nextkernel

install-arch: ## install what pacman and mkinitcpio run after an update
	install -D -m 0644 triggers/arch/zzz-nextkernel.hook $(DESTDIR)/usr/share/libalpm/hooks/zzz-nextkernel.hook
	install -D -m 0755 triggers/arch/mkinitcpio-post $(DESTDIR)$(INITCPIO)/post/zzz-nextkernel

install-alpine: ## install what Alpine's kernel-hooks and apk run after an update
	install -D -m 0755 triggers/alpine/zzz-nextkernel.hook $(DESTDIR)/etc/kernel-hooks.d/zzz-nextkernel.hook
	install -D -m 0755 triggers/alpine/commit-hook $(DESTDIR)/etc/apk/commit_hooks.d/zzz-nextkernel.hook

install-void: ## install what Void's kernels run after an update
	install -D -m 0755 triggers/void/post-install $(DESTDIR)/etc/kernel.d/post-install/zzz-nextkernel
	install -D -m 0755 triggers/void/post-remove $(DESTDIR)/etc/kernel.d/post-remove/zzz-nextkernel

uninstall: ## remove what install installed, from the same $(DESTDIR) and $(PREFIX)
	rm -f $(DESTDIR)$(PREFIX)/bin/nextkernel $(DESTDIR)$(PREFIX)/bin/nextkernel-hook $(DESTDIR)$(SHUTDOWN)/nextkernel
	cd $(DESTDIR)$(PREFIX)/lib/systemd/system && \
	    rm -f $(UNITS) && cd multi-user.target.wants && rm -f $(ENABLED)
	rm -rf $(DESTDIR)$(PREFIX)/lib/nextkernel $(DESTDIR)$(PREFIX)/share/doc/nextkernel $(DESTDIR)$(DRACUT)/90nextkernel
	cd $(DESTDIR)$(PREFIX)/share/man && rm -f $(PAGES8:%=man8/%) $(PAGES5:%=man5/%)
	cd $(DESTDIR)$(PREFIX) && rm -f $(BASH)/nextkernel $(ZSH)/_nextkernel $(FISH)/nextkernel.fish
	rm -f $(DESTDIR)$(INITCPIO)/install/nextkernel $(DESTDIR)$(INITCPIO)/post/zzz-nextkernel
	rm -f $(DESTDIR)$(PREFIX)/lib/systemd/system-preset/80-nextkernel.preset
	rm -f $(DESTDIR)$(KERNELINSTALL)/95-nextkernel.install $(DESTDIR)/usr/share/libalpm/hooks/zzz-nextkernel.hook
	for folder in kernel/postinst.d kernel/postrm.d initramfs/post-update.d kernel.d/post-install kernel.d/post-remove; do \
	    rm -f $(DESTDIR)/etc/$$folder/zzz-nextkernel; done
	rm -f $(DESTDIR)/etc/kernel-hooks.d/zzz-nextkernel.hook $(DESTDIR)/etc/apk/commit_hooks.d/zzz-nextkernel.hook
	rm -f $(DESTDIR)$(TMPFILES)/nextkernel-dracut.conf $(DESTDIR)$(TMPFILES)/30-nextkernel.conf

clean: ## remove everything that was built, the guests too
	rm -rf target src/target fuzz/target

guest-install: all
	@rm -rf $(INSTALLED)
	@$(MAKE) --no-print-directory --silent install install-debian DESTDIR=$(CURDIR)/$(INSTALLED) PREFIX=/usr

prepare-demo prepare-test prepare-all:
	@tests/prepare $(@:prepare-%=%)

need-root:
	@[ "$$(id -u)" = 0 ] || { echo "make: guests are made by mmdebstrap, which takes root: run this as root" >&2; exit 1; }

.PHONY: all help hook tool manuals cross demo test test-all vm mutations deb rpm release bench lint unit deny fuzz install install-dracut install-mkinitcpio install-debian install-arch install-alpine install-void uninstall clean guest-install prepare-demo prepare-test prepare-all need-root images checked-and-built cross-where-it-can-be
