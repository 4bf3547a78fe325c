// XML is read whole or not at all.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { elementsNamed, parseXml } from '../../../dns/providers/xml.ts';

const text =
  '<?xml version="1.0"?>\n<a x="1 &amp; 2"><!-- c --><b y=\'&quot;&#x41;&#66;\'/><B>in &lt;side&gt;</B></a>';

test('elements, attributes, text and entities are read', () => {
  const root = parseXml(text);
  assert.equal(root?.attributes.x, '1 & 2');
  assert.deepEqual(
    elementsNamed(root!, 'b').map(({ attributes, text: own }) => [attributes.y, own]),
    [
      ['"AB', undefined],
      [undefined, 'in <side>'],
    ].map(([y, own]) => [y, own ?? '']),
  );
});

test('a text cut off anywhere is no document', () => {
  for (let length = 0; length < text.length; length++)
    assert.equal(parseXml(text.slice(0, length)), undefined, String(length));
});

test('what is crossed, doubled, unquoted or declared is no document', () => {
  for (const bad of [
    '<a><b></a></b>',
    '<a/><b/>',
    '<a x=1/>',
    'text<a/>',
    '<!DOCTYPE a [<!ENTITY e "x">]><a>&e;</a>',
    '<a',
    '</a>',
    '',
  ]) {
    assert.equal(parseXml(bad), undefined, bad);
  }
});
