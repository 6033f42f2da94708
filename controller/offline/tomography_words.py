"""Tables of a reduced volume for people."""

from __future__ import annotations

from typing import Any

from controller.offline.values import pm, table


def volume_text(data: dict[str, Any]) -> str:
    """Return the tables of a volume."""
    z, y, x = data["voxels"]
    size = f" of {data['voxel_um']:g} um" if data["voxel_um"] else ""
    lines = [f"{data['file']}: {z} x {y} x {x} voxels{size}, depth along {data['depth']}"]
    if data["threshold"] is not None:
        t, (dark, bright) = data["threshold"], data["class_means"]
        lines.append(
            f"  threshold {t['value']:.6g} ± {t['sigma_sys']:.2g} between classes at {dark:.6g}, {bright:.6g}"
        )
    if data["electrode_voxels"] is not None:
        lines.append(f"  electrode: {data['electrode_voxels']} voxels")
    rows = [_region("all", data["porosity"])]
    rows += [_region(str(k + 1), region) for k, region in enumerate(data["regions"])]
    lines.append(table(("region", "planes", "porosity", "correlation / voxels", "independent voxels"), rows))
    part = data["largest_component"]
    lines.append(
        f"  {data['pore_solid_faces']} faces between pore and solid; {data['components']} pore components, "
        f"the largest has {'-' if part is None else f'{100 * part:.2f} %'} of the pores"
    )
    if data["transport"]:
        lines.append(_transport(data["transport"]))
    if "roughness" in data:
        r = data["roughness"]
        ra, rq = (pm(r[k]["value"], r[k]["sigma_stat"], r[k]["sigma_sys"]) for k in ("ra", "rq"))
        lines.append(f"  {r['side']} surface, {r['points']} heights: R_a {ra}, R_q {rq} {r['ra']['unit']}")
    if "registration" in data:
        r = data["registration"]
        y_um, x_um = (pm(r[k]["value"], r[k]["sigma_stat"]) for k in "yx")
        lines.append(
            f"  {r['map']} begins at y {y_um}, x {x_um} um; correlation {r['correlation']:.3f}, "
            f"chi2 {r['chi2']:.0f} of {r['ndf']}"
        )
    lines += [f"  note: {note}" for note in data["notes"]]
    lines.append("  errors: statistical (of the material, correlated voxels) ± systematic (threshold; flux)")
    return "\n".join(lines)


def _region(name: str, region: dict[str, Any]) -> tuple[str, ...]:
    p = region["porosity"]
    stat = "not known" if p["sigma_stat"] is None else f"{p['sigma_stat']:.4f}"
    reach, independent = region["correlation_voxels"], region["independent"]
    return (
        name, f"{region['planes'][0]} to {region['planes'][1]}",
        f"{p['value']:.6f} ± {stat} ± {p['sigma_sys']:.4f}",
        "-" if reach is None else f"{reach:.1f}", "-" if independent is None else f"{independent:.0f}",
    )  # fmt: skip


def _transport(entries: list[dict[str, Any]]) -> str:
    rows = []
    for e in entries:
        planes = f"{e['planes'][0]} to {e['planes'][1]}"
        if e["tortuosity"] is None:
            rows.append((e["axis"], planes, e["why"], "-", "-", "-"))
            continue
        t, d = e["tortuosity"], e["diffusivity"]
        directional = e.get("directional_diffusion")
        rows.append((
            e["axis"], planes, pm(t["value"], t["sigma_sys"]), pm(d["value"], d["sigma_sys"]),
            f"{100 * e['flux_mismatch']:.2f} % in {e['iterations']}",
            "-" if directional is None
            else f"{directional['value']:.3g} ± {directional['sigma_stat']:.1g} {directional['unit']}",
        ))  # fmt: skip
    heads = ("along", "planes", "tortuosity", "D_eff / D", "flux mismatch, iterations", "D eps/tau")
    return table(heads, rows)
