"""``interloom cluster preflight``: what can be known to fail before the first pod starts.

The manifests of an overlay and the very Jobs, model servers and pods that the executor would make
are given to the API server as a dry run. What a dry run does not see is looked at: Secrets and
their keys, volumes, quota for all pods of a stage together, images, the servers that a stage needs,
the DVC remote. Nothing is changed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interloom.cluster import manifests as made
from interloom.cluster.data import TransferError, reach, remote_options
from interloom.cluster.dry_run import DryRun
from interloom.cluster.names import Origin, labels
from interloom.cluster.quantities import amount, most_amounts, shown
from interloom.cluster.rendered import (
    WORKLOADS,
    Manifest,
    claims,
    containers,
    label,
    most_replicas,
    named,
    of_kind,
    pod_spec,
    render,
    secret_keys,
)
from interloom.cluster.services import objects
from interloom.doctor import Finding
from interloom.errors import InterloomError
from interloom.settings.file import Settings
from interloom.stages import find_stage

SHARED_MODE = "ReadWriteMany"


@dataclass(frozen=True)
class StageJob:
    """A stage as the executor would send it."""

    name: str
    manifest: Manifest
    servers: tuple[Manifest, ...]
    """What the run would have of its own: Deployments, Services, autoscalers."""
    pods: int
    needs: tuple[str, ...]
    gpus: int

    @property
    def workloads(self) -> list[Manifest]:
        """All that has pods."""
        return [self.manifest, *of_kind(self.servers, *WORKLOADS)]


def examine(root: Path, settings: Settings, overlay: Path) -> Iterator[Finding]:
    """Check an overlay and the stages of the section ``cluster``, one finding after another.

    Raises:
        InterloomError: the overlay cannot be rendered, or the cluster does not answer.
    """
    manifests = render(overlay)
    yield Finding("good", "manifests", f"{overlay}: {len(manifests)} objects are rendered")
    jobs = stage_jobs(settings)
    if not any(settings.cluster.runs(job.name) for job in jobs):
        text = "cluster.stages sends no stage to the cluster: those it names are checked"
        yield Finding("note", "stages", text)
    of_jobs = [workload for job in jobs for workload in job.workloads]
    workloads = [*of_kind(manifests, *WORKLOADS), *of_jobs]
    yield from _images(settings, [*manifests, *of_jobs])
    yield from _remote(root, settings)
    server = DryRun(settings.cluster.context)
    yield Finding("good", "cluster", f"Kubernetes {server.version} at {server.address}")
    namespace = settings.cluster.namespace
    if not server.get("v1", "Namespace", "", namespace).taken:
        text = f"there is no namespace {namespace}: `kubectl create namespace {namespace}` first"
        yield Finding("missing", "namespace", text)
        return
    yield from _applied(server, manifests)
    yield from _stages(server, jobs, namespace)
    yield from _quota(server, jobs, manifests, namespace)
    yield from _secrets(server, workloads, namespace)
    yield from _volumes(server, jobs, manifests, workloads, namespace)
    yield from _servers(server, jobs, settings, manifests)


def stage_jobs(settings: Settings) -> list[StageJob]:
    """The Jobs of the stages that run on the cluster, or, if none does, of all that it names.

    Raises:
        InterloomError: a stage that is none, or that cannot run in so many processes.
    """
    options = settings.cluster
    chosen = [name for name in options.stages if options.runs(name)] or list(options.stages)
    found = []
    for name in chosen:
        pods = options.stages[name]
        made.check_processes(find_stage(name), pods)
        work = made.Work(
            stage=name,
            name=f"{name}-preflight",
            command=("interloom", "run", name),
            env={},
            labels=labels(name, Origin("", "")),
        )
        job = made.job(work, options, pods, {}, round(60 * options.deadline_minutes))
        own = [need for need in pods.needs if not options.services[need].shared]
        servers = tuple(
            body
            for need in own
            for _, body in objects(work, f"{work.name}-{need}", options.services[need], options)
        )
        found.append(StageJob(name, job, servers, pods.pods, pods.needs, pods.gpus))
    return found


def _images(settings: Settings, manifests: Sequence[Manifest]) -> Iterator[Finding]:
    """Whether images are pinned, and the stages' image is one that the cluster is given anyhow."""
    images = {
        container["image"]: label(workload)
        for workload in of_kind(manifests, *WORKLOADS)
        for container in containers(pod_spec(workload))
    } | {settings.cluster.image: "cluster.image"}
    loose = [f"{image} ({who})" for image, who in sorted(images.items()) if not _pinned(image)]
    if loose:
        text = f"{', '.join(loose)}: give a tag with a version, or a digest"
        yield Finding("missing", "images", text)
    bare = sorted(image for image in images if "/" not in image and image.startswith("interloom"))
    if bare:
        text = (
            f"no registry in {', '.join(bare)}: nodes must have them, or set newName in the "
            "overlay's images, and cluster.image"
        )
        yield Finding("note", "images", text)
    if not loose and not bare:
        yield Finding("good", "images", f"{len(images)} images, all pinned")


def _pinned(image: str) -> bool:
    tag = image.rpartition("/")[2].partition("@")[0].partition(":")[2]
    return "@sha256:" in image or re.match(r"v?\d", tag) is not None


def _remote(root: Path, settings: Settings) -> Iterator[Finding]:
    """Whether pods could reach the DVC remote, and whether we can."""
    data = settings.cluster.data
    if data.kind != "dvc":
        text = f"files are on the volume {data.claim}: no DVC remote is needed"
        yield Finding("good", "remote", text)
        return
    try:
        url = remote_options(root, data.remote)["url"]
        if "://" not in url:
            text = f"{url} is a folder of this machine, which pods do not have: `dvc remote add`"
            yield Finding("missing", "remote", text)
            return
        reach(root, data.remote)
    except (InterloomError, TransferError) as error:
        yield Finding("missing", "remote", str(error))
        return
    yield Finding("good", "remote", f"{url} answers")


def _applied(server: DryRun, manifests: Sequence[Manifest]) -> Iterator[Finding]:
    """Every manifest as a dry run."""
    refused = 0
    for manifest in manifests:
        try:
            answer = server.apply(manifest)
        except InterloomError as error:
            yield Finding("missing", "dry run", f"{label(manifest)}: {error}")
            refused += 1
            continue
        if not answer.taken:
            yield Finding("missing", "dry run", f"{label(manifest)}: {answer.message}")
            refused += 1
    if not refused:
        yield Finding("good", "dry run", f"the server would take all {len(manifests)} manifests")


def _stages(server: DryRun, jobs: Sequence[StageJob], namespace: str) -> Iterator[Finding]:
    """Each stage's Job and servers, and a pod of each: pods are where admission looks most
    closely."""
    for job in jobs:
        bodies = [job.manifest, *job.servers, *map(_pod_of, job.workloads)]
        answers = [server.create(body, namespace) for body in bodies]
        refusals = [answer.message for answer in answers if not answer.taken]
        if refusals:
            yield Finding("missing", "stages", f"{job.name}: {'; '.join(refusals)}")
        else:
            text = f"{job.name}: Job and pods would be let in ({job.pods} × {job.gpus} GPUs)"
            yield Finding("good", "stages", text)


def _pod_of(workload: Manifest) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": workload["metadata"]["name"],
            "labels": workload["spec"]["template"]["metadata"]["labels"],
        },
        "spec": pod_spec(workload),
    }


def _quota(
    server: DryRun, jobs: Sequence[StageJob], manifests: Sequence[Manifest], namespace: str
) -> Iterator[Finding]:
    """Whether the namespace's quotas have room for all pods of each stage together, those of its
    own servers included."""
    quotas = server.get("v1", "ResourceQuota", namespace).body.get("items", [])
    rendered = of_kind(manifests, "ResourceQuota")
    if not quotas and rendered:
        yield Finding("note", "quota", "none is there yet: that of the overlay is looked at")
        quotas = [{"metadata": q["metadata"], "spec": q["spec"]} for q in rendered]
    for job in jobs:
        wanted = most_amounts(job.workloads)
        never, later = [], []
        for quota in quotas:
            hard = quota["spec"].get("hard", {})
            used = quota.get("status", {}).get("used", {})
            for name in sorted(set(hard) & set(wanted)):
                most, taken = amount(hard[name]), amount(used.get(name, 0))
                text = f"{name} {shown(wanted[name])}"
                if wanted[name] > most:
                    never.append(f"{text} of {shown(most)}")
                elif wanted[name] + taken > most:
                    later.append(f"{text} of {shown(most - taken)} that are left")
        if never:
            text = f"{job.name} can never start: it asks for {', '.join(never)}"
            yield Finding("missing", "quota", text)
        elif later:
            text = f"{job.name} would wait for others to end: it asks for {', '.join(later)}"
            yield Finding("note", "quota", text)
        elif quotas:
            yield Finding("good", "quota", f"{job.name} fits")


def _secrets(server: DryRun, workloads: Iterable[Manifest], namespace: str) -> Iterator[Finding]:
    """Whether the Secrets are there, with the keys that are read of them."""
    wanted: dict[tuple[str, str], list[str]] = {}
    for one in sorted({found for workload in workloads for found in secret_keys(workload)}):
        wanted.setdefault((one.secret, one.key), []).append(one.reader)
    present: dict[str, Any] = {}
    missing = 0
    for (secret, key), readers in wanted.items():
        if secret not in present:
            present[secret] = server.get("v1", "Secret", namespace, secret)
        answer, who = present[secret], ", ".join(readers)
        if answer.code == 403:
            yield Finding("note", "secrets", f"{secret} (for {who}): {answer.message}")
            missing += 1
        elif not answer.taken:
            yield Finding("missing", "secrets", f"{secret} is not there, and {who} needs it")
            missing += 1
        elif key and key not in (answer.body.get("data") or {}):
            text = f"{secret} has no key {key!r}, which {who} needs"
            yield Finding("missing", "secrets", text)
            missing += 1
    if not missing:
        yield Finding("good", "secrets", f"{len(present)} Secrets have all keys that are read")


def _volumes(
    server: DryRun,
    jobs: Sequence[StageJob],
    manifests: Sequence[Manifest],
    workloads: Iterable[Manifest],
    namespace: str,
) -> Iterator[Finding]:
    """Whether claims are there or in the overlay, and shared where several pods mount them."""
    together = {claim for job in jobs for claim in _shared_claims(job)}
    for claim in sorted({name for workload in workloads for name in claims(workload)}):
        there = server.get("v1", "PersistentVolumeClaim", namespace, claim)
        found = there.body if there.taken else named(manifests, "PersistentVolumeClaim", claim)
        if found is None:
            text = f"{claim} is neither there nor in the overlay"
            yield Finding("missing", "volumes", text)
            continue
        modes = found["spec"].get("accessModes", [])
        if claim in together and SHARED_MODE not in modes:
            text = f"{claim} is {', '.join(modes)}, and several pods mount it: {SHARED_MODE}"
            yield Finding("missing", "volumes", text)
        elif not there.taken:
            yield Finding("note", "volumes", f"{claim} is made by the overlay")
        elif found.get("status", {}).get("phase") == "Lost":
            yield Finding("missing", "volumes", f"{claim} has lost its volume")
        else:
            phase = found.get("status", {}).get("phase", "Pending")
            yield Finding("good", "volumes", f"{claim} is there ({phase})")


def _shared_claims(job: StageJob) -> set[str]:
    """Claims that several pods of a stage and its servers mount."""
    mounted = Counter[str]()
    for workload in job.workloads:
        for claim in claims(workload):
            mounted[claim] += most_replicas(workload, job.servers)
    return {claim for claim, pods in mounted.items() if pods > 1}


def _servers(
    server: DryRun, jobs: Sequence[StageJob], settings: Settings, manifests: Sequence[Manifest]
) -> Iterator[Finding]:
    """Whether the shared servers that stages need are there, or in the overlay."""
    services = settings.cluster.services
    shared = {name for job in jobs for name in job.needs if services[name].shared}
    for name in sorted(shared):
        answer = server.get("apps/v1", "Deployment", settings.cluster.namespace, name)
        if answer.taken:
            ready = answer.body.get("status", {}).get("readyReplicas", 0)
            yield Finding("good", "servers", f"{name} is there, {ready} replicas are ready")
        elif named(manifests, "Deployment", name):
            yield Finding("note", "servers", f"{name} is made by the overlay")
        else:
            text = f"{name} is neither there nor in the overlay (cluster.services.{name})"
            yield Finding("missing", "servers", text)
