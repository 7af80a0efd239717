import { describe, expect, it } from 'vitest';
import { printable, shown } from './identifying-found.ts';

describe('shown()', () => {
  it('shows 300 characters', () => {
    expect(shown('b'.repeat(299))).toHaveLength(299);
    expect(shown(`${'b'.repeat(300)}c`)).toBe('b'.repeat(300));
  });
});

describe('printable()', () => {
  it('takes printable ASCII and Latin-1, and a blank for anything between', () => {
    const printed = (byte: number) => printable(Uint8Array.of(65, byte, byte, 65));
    for (let byte = 0; byte < 256; byte++) {
      const isPrinted = (byte >= 32 && byte < 127) || byte >= 160;
      const letter = String.fromCharCode(byte);
      expect(printed(byte), String(byte)).toBe(isPrinted ? `A${letter}${letter}A` : 'A A');
    }
  });

  it('trims blanks at both ends, and everything after 1200 bytes', () => {
    const bytes = (length: number) => new Uint8Array([...new Uint8Array(length), 74, 97, 110, 0, 9]);
    expect(printable(bytes(5))).toBe('Jan');
    expect(printable(bytes(1198))).toBe('Ja');
    expect(printable(bytes(1200))).toBe('');
    expect(printable(new Uint8Array(301).fill(66))).toBe('B'.repeat(300));
  });
});
