/** Whom the operator names for access, as a sentence; addresses are links. */
export function Contact({ of: contact }: { of: string | undefined }) {
  if (contact === undefined) return null;
  const address = contactAddress(contact);
  return (
    <p className="fine contact">
      Contact for access: {address ? <a href={address}>{contact.replace(/^mailto:/i, '')}</a> : contact}
    </p>
  );
}

/** Where a contact leads if all of it is an email or https address. */
export function contactAddress(contact: string): string | undefined {
  if (/^[^\s@:/?#]+@[^\s@:/?#]+$/.test(contact)) return `mailto:${contact}`;
  const url = URL.parse(contact);
  return url && ['mailto:', 'https:'].includes(url.protocol) && !/\s/.test(contact) ? url.href : undefined;
}
