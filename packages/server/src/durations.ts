const unitMs = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;

/** A span of time as people write it, `60s`, `5m`, `12h`, `3d`, in ms; undefined for any other text. */
export function parseDuration(text: string): number | undefined {
  const match = /^(\d{1,5})([smhd])$/.exec(text);
  return match ? Number(match[1]) * unitMs[match[2] as keyof typeof unitMs] : undefined;
}
