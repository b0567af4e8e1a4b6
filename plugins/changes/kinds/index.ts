import type { ChangeTool } from '../change.ts'
import createPartitions from './create-partitions.ts'
import createTopic from './create-topic.ts'
import deleteGroup from './delete-group.ts'
import deleteTopic from './delete-topic.ts'
import drainBroker from './drain-broker.ts'
import flushBroker from './flush-broker.ts'
import type { Kind } from './kind.ts'
import updateTopicConfig from './update-topic-config.ts'

/** What each tool that proposes a change does. */
export const KINDS: Readonly<Record<ChangeTool, Kind>> = {
  create_topic: createTopic,
  delete_topic: deleteTopic,
  create_partitions: createPartitions,
  update_topic_config: updateTopicConfig,
  delete_group: deleteGroup,
  drain_broker: drainBroker,
  flush_broker: flushBroker,
}
