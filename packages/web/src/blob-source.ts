import type { SourceFile } from '@tomaat/core';

/** A Blob as a source for core. */
export const sourceOf = (file: { name: string; blob: Blob }): SourceFile => ({
  name: file.name,
  sizeBytes: file.blob.size,
  async *open(start = 0) {
    const reader = file.blob.slice(start).stream().getReader();
    try {
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        yield value;
      }
    } finally {
      reader.cancel().catch(() => undefined);
    }
  },
});
