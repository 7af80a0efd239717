import { createElement } from 'react';
import { renderToStaticMarkup } from 'react-dom/server';
import { describe, expect, it } from 'vitest';
import { Contact, contactAddress } from './contact.tsx';

describe('contactAddress()', () => {
  it.each([
    ['ada@hospital.example', 'mailto:ada@hospital.example'],
    ['mailto:ada@hospital.example?subject=Access', 'mailto:ada@hospital.example?subject=Access'],
    ['https://hospital.example/access', 'https://hospital.example/access'],
  ])('leads from %s to it', (contact, address) => {
    expect(contactAddress(contact)).toBe(address);
  });

  it.each([
    'Ada Example, room 12',
    'Ada <ada@hospital.example>',
    'http://hospital.example',
    'javascript:alert(1)',
    'javascript:a@b',
    'https://hospital.example or room 12',
    'a@b@c',
  ])('makes no link of %s', (contact) => {
    expect(contactAddress(contact)).toBeUndefined();
  });
});

describe('Contact', () => {
  it('shows markup as text', () => {
    expect(renderToStaticMarkup(createElement(Contact, { of: '<b>Ada</b>' }))).toContain(
      '&lt;b&gt;Ada&lt;/b&gt;',
    );
  });
});
