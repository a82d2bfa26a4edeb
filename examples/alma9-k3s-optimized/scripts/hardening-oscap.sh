#!/usr/bin/env bash
# Checks the image against an OpenSCAP profile and keeps the report; changes the system only when told to.
#
# Environment:
#   HARDENING_OSCAP      1 runs it; 0 (default) does nothing
#   HARDENING_PROFILE    profile of the SCAP Security Guide, short or full; default cis_server_l1
#   HARDENING_REMEDIATE  1 also applies the profile's own fixes, then checks again; 0 (default) only reports
#   K3SIMAGE_ROOT        prefix of every path; for tests
#
# Leaves /var/lib/k3simage/oscap/report.html and results.xml in the image.
set -euo pipefail

root="${K3SIMAGE_ROOT:-}"
fail() { printf 'hardening-oscap: %s\n' "$*" >&2; exit 1; }

case "${HARDENING_OSCAP:-0}" in
    0) printf 'hardening-oscap: off (HARDENING_OSCAP=1 turns it on)\n'; exit 0 ;;
    1) ;;
    *) fail "HARDENING_OSCAP is \"${HARDENING_OSCAP}\"; give 1 or 0" ;;
esac
remediate="${HARDENING_REMEDIATE:-0}"
[[ "${remediate}" == [01] ]] || fail "HARDENING_REMEDIATE is \"${remediate}\"; give 1 or 0"
profile="${HARDENING_PROFILE:-cis_server_l1}"
[[ "${profile}" =~ ^[A-Za-z0-9._-]+$ ]] || fail "HARDENING_PROFILE \"${profile}\" is no profile's name"

for package in openscap-scanner scap-security-guide; do
    rpm -q "${package}" >/dev/null 2>&1 || dnf -y install "${package}" || fail "dnf could not install ${package} (AppStream)"
done

# Only Alma's own content applies: with RHEL's every rule ends as "notapplicable".
content="${root}/usr/share/xml/scap/ssg/content/ssg-almalinux9-ds.xml"
[[ -r "${content}" ]] || fail "scap-security-guide holds no ${content##*/}; update the package"
oscap info --profiles "${content}" | cut -d: -f1 | grep -Eqx "(xccdf_org\.ssgproject\.content_profile_)?${profile//./\\.}" \
    || fail "${content##*/} has no profile ${profile}; see them with: oscap info --profiles ${content}"

reports="${root}/var/lib/k3simage/oscap"
mkdir -p "${reports}"
# oscap ends with 2 when a rule does not hold: that is a result, not a failure. Only 1 means it could not work.
evaluate() {
    local code=0
    oscap xccdf eval --profile "${profile}" --results "${reports}/results.xml" --report "${reports}/report.html" "$@" \
        "${content}" >"${reports}/rules.txt" || code=$?
    [[ "${code}" == 0 || "${code}" == 2 ]] || fail "oscap ended with ${code}; see its lines above"
}
evaluate
if [[ "${remediate}" == 1 ]]; then
    evaluate --remediate
    evaluate
fi
score="$(sed -n 's/.*<score [^>]*>\([0-9.]*\)<.*/\1/p' "${reports}/results.xml" | tail -n 1)"
[[ -n "${score}" ]] || fail "oscap wrote no score into ${reports#"${root}"}/results.xml"
rm -f "${reports}/rules.txt"
printf 'hardening-oscap: profile %s, score %s of 100, report in %s\n' "${profile}" "${score}" "${reports#"${root}"}"
