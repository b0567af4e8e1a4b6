import { Type } from '@sinclair/typebox'
import { defineProposal, topicName } from './shared/change.ts'
import { input } from './shared/schema.ts'

const MEANINGS = {
  'retention.ms': 'Milliseconds that records are kept; -1 for no limit',
  'retention.bytes': 'Bytes of a partition that are kept; -1 for no limit',
  'segment.bytes': 'Bytes of a segment, above 0',
} as const

function setting (description: string) {
  return Type.Optional(Type.Unsafe<number | string>({
    type: ['integer', 'string'],
    pattern: '^-?[0-9]+$',
    maxLength: 20,
    minimum: Number.MIN_SAFE_INTEGER,
    maximum: Number.MAX_SAFE_INTEGER,
    description,
  }))
}

/**
 * Listed as text, which can be empty: a model in OpenAI's strict mode has to fill in every setting, and leaves out by
 * that what it does not want to change.
 */
function listed (description: string) {
  return Type.Optional(Type.String({ maxLength: 20, description }))
}

const DESCRIPTION = 'Integers as text; what is empty or absent keeps its value'

export default defineProposal({
  name: 'update_topic_config',
  title: 'Propose topic settings',
  description:
    'Plans to change settings of a topic: returns the present values and what would happen. KafScale stores and ' +
    'reports them, but does not enforce them. Changes nothing until apply_change is called with the change_id.',
  input: input({
    topic: topicName,
    config: Type.Object({
      'retention.ms': setting(MEANINGS['retention.ms']),
      'retention.bytes': setting(MEANINGS['retention.bytes']),
      'segment.bytes': setting(MEANINGS['segment.bytes']),
    }, { description: DESCRIPTION }),
  }),
  listed: {
    config: Type.Object({
      'retention.ms': listed(MEANINGS['retention.ms']),
      'retention.bytes': listed(MEANINGS['retention.bytes']),
      'segment.bytes': listed(MEANINGS['segment.bytes']),
    }, { description: DESCRIPTION }),
  },
})
