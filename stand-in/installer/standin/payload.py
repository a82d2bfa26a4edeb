"""The packages: which ones, from where, put into the new system by the real dnf."""

from dataclasses import dataclass, field

from standin.errors import Fatal, Question, YesNo
from standin.kickstart import Kickstart

SOURCE = "Installation source"
MEDIUM = "/run/install/repo"
# What the firmware's boot needs; the installer adds it to whatever was asked for.
BIOS_PACKAGES = ["grub2-pc", "grub2-tools"]
UEFI_PACKAGES = ["grub2-efi-x64", "shim-x64", "efibootmgr", "grub2-tools"]


@dataclass
class Repository:
    """A repository; one of the three addresses is given."""

    name: str
    baseurl: str = ""
    mirrorlist: str = ""
    metalink: str = ""
    install: bool = False
    excluded: list[str] = field(default_factory=list)
    included: list[str] = field(default_factory=list)


@dataclass
class Selection:
    """What goes into the system."""

    environment: str
    groups: list[str]
    packages: list[str]
    excluded: list[str]
    ignore_missing: bool = False
    weak: bool = True


def repositories(kickstart: Kickstart, told: str | None) -> list[Repository]:
    """Where packages come from: `inst.repo`, else `url`, else the medium; then every `repo`."""
    handler = kickstart.handler
    url = handler.url
    found = []
    if told and not told.startswith(("cdrom", "hd:")):
        found.append(Repository("anaconda", baseurl=told))
    elif "url" in kickstart.used and not told:
        found.append(Repository("anaconda", baseurl=url.url or "", mirrorlist=url.mirrorlist or "", metalink=url.metalink or ""))
    else:
        found += [Repository("BaseOS", baseurl=f"file://{MEDIUM}/BaseOS"), Repository("AppStream", baseurl=f"file://{MEDIUM}/AppStream")]
    taken = {repository.name for repository in found}
    for repo in handler.repo.repoList:
        # dnf knows one repository by a name; the medium's two keep theirs.
        name = repo.name if repo.name not in taken else f"{repo.name}-1"
        taken.add(name)
        if repo.baseurl or repo.mirrorlist or repo.metalink:
            found.append(Repository(name, repo.baseurl or "", repo.mirrorlist or "", repo.metalink or "", bool(repo.install), list(repo.excludepkgs or []), list(repo.includepkgs or [])))
    return found


def selection(kickstart: Kickstart, *, uefi: bool) -> Selection:
    packages = kickstart.handler.packages
    if packages.seen:
        environment = packages.environment or ("minimal-environment" if packages.default else "")
        groups = [group.name for group in packages.groupList]
        wanted, excluded = list(packages.packageList), list(packages.excludedList)
        # The group of what every system needs, unless the kickstart says --nocore.
        if not packages.nocore and "core" not in groups:
            groups.insert(0, "core")
        if packages.excludedGroupList:
            raise Fatal("the stand-in does not carry out the exclusion of whole groups in %packages")
    else:
        raise Question("Software selection", "Kickstart insufficient: there is no %packages section")
    wanted += [name for name in (UEFI_PACKAGES if uefi else BIOS_PACKAGES) if name not in wanted]
    return Selection(environment, groups, wanted, excluded, packages.handleMissing == 1, not packages.excludeWeakdeps)


def install(repos: list[Repository], chosen: Selection, sysroot: str, say, *, ignore_missing: bool) -> None:
    """Installs the selection. Raises `Question` if a repository cannot be read, `YesNo` if something is missing."""
    import dnf  # not there where the tests run
    import dnf.callback
    import dnf.exceptions
    import dnf.rpm.transaction
    import dnf.yum.rpmtrans

    base = dnf.Base()
    conf = base.conf
    conf.installroot = sysroot
    conf.cachedir = "/tmp/dnf.cache"
    conf.reposdir = ["/nonexistent"]
    conf.pluginpath = ["/nonexistent"]
    conf.plugins = False
    conf.gpgcheck = False
    conf.install_weak_deps = chosen.weak
    conf.substitutions["releasever"] = "9"
    conf.substitutions["basearch"] = conf.substitutions["arch"] = "x86_64"
    # Only now: the names of these folders may hold what is substituted.
    conf.prepend_installroot("persistdir")
    conf.prepend_installroot("logdir")
    conf.module_platform_id = "platform:el9"
    conf.timeout, conf.retries = 20, 2
    for repo in repos:
        options = {"baseurl": [repo.baseurl] if repo.baseurl else [], "mirrorlist": repo.mirrorlist or None, "metalink": repo.metalink or None}
        added = base.repos.add_new_repo(repo.name, conf, **{name: value for name, value in options.items() if value})
        added.excludepkgs, added.includepkgs = repo.excluded, repo.included
        added.skip_if_unavailable = False
        added.enable()
    try:
        base.fill_sack(load_system_repo=True)
    except dnf.exceptions.RepoError as error:
        raise Question(SOURCE, f"Error setting up software source: {error}") from error
    base.read_comps(arch_filter=True)
    try:
        _mark(base, chosen, ignore_missing=ignore_missing or chosen.ignore_missing)
        base.resolve(allow_erasing=False)
    except dnf.exceptions.DepsolveError as error:
        raise Fatal(f"The following software marked for installation has errors.\nThis is likely caused by an error with your installation source.\n\n{error}") from error
    say("Downloading packages")
    try:
        base.download_packages(list(base.transaction.install_set))
    except dnf.exceptions.DownloadError as error:
        raise Fatal(f"Error downloading packages: {error}") from error
    say("Preparing transaction from installation source")
    total = len(base.transaction.install_set)
    try:
        base.do_transaction(_display(dnf, say, total))
    except dnf.exceptions.Error as error:
        raise Fatal(f"DNF error: {error}") from error
    base.close()


def _mark(base, chosen: Selection, *, ignore_missing: bool) -> None:
    missing = []
    for pattern in chosen.excluded:
        base.sack.add_excludes(base.sack.query().filterm(name__glob=pattern))
    types = ["mandatory", "default"]
    if chosen.environment:
        environment = base.comps.environment_by_pattern(chosen.environment)
        if environment is None:
            missing.append(f"@^{chosen.environment}")
        else:
            base.environment_install(environment.id, types)
    for name in chosen.groups:
        group = base.comps.group_by_pattern(name)
        if group is None:
            missing.append(f"@{name}")
        else:
            base.group_install(group.id, types)
    for name in chosen.packages:
        try:
            base.install(name)
        except Exception:  # dnf has several kinds for "there is no such thing"
            missing.append(name)
    if missing and not ignore_missing:
        raise YesNo(f"Problems in request:\nmissing packages, groups or environments: {', '.join(missing)}")


def _display(dnf, say, total: int):
    """Tells each package once, as the installer does."""

    class Display(dnf.callback.TransactionProgress):
        def __init__(self) -> None:
            super().__init__()
            self.told: set[str] = set()

        def progress(self, package, action, ti_done, ti_total, ts_done, ts_total) -> None:
            if action == dnf.callback.PKG_INSTALL and str(package) not in self.told:
                self.told.add(str(package))
                say(f"Installing {package.name}.{package.arch} ({len(self.told)}/{total})")
            elif action == dnf.callback.TRANS_POST:
                say("Performing post-installation setup tasks")

        def scriptout(self, messages) -> None:
            if messages:
                for line in str(messages).splitlines():
                    say(f"  {line}", quiet=True)

        def error(self, message) -> None:
            say(f"Error: {message}")

    return Display()
