"""Names of span attributes: OpenTelemetry's GenAI conventions first, then raybolt's own.

Token arrays (``PROMPT_IDS``, ``RESPONSE_IDS``, ``LOGPROBS``) are 1-D NumPy arrays; everything else is a
JSON value.
"""

from typing import Final

# OpenTelemetry GenAI semantic conventions.
OPERATION: Final = "gen_ai.operation.name"
CHAT: Final = "chat"
EXECUTE_TOOL: Final = "execute_tool"
INVOKE_AGENT: Final = "invoke_agent"
AGENT_NAME: Final = "gen_ai.agent.name"
"""The role that made the call."""
REQUEST_MODEL: Final = "gen_ai.request.model"
TOOL_NAME: Final = "gen_ai.tool.name"
TOOL_CALL_ID: Final = "gen_ai.tool.call.id"
TOOL_ARGUMENTS: Final = "gen_ai.tool.call.arguments"
TOOL_RESULT: Final = "gen_ai.tool.call.result"
TOOL_DEFINITIONS: Final = "gen_ai.tool.definitions"
"""What the call could use; on calls that an agent's own model answered."""
INPUT_MESSAGES: Final = "gen_ai.input.messages"
OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"

# raybolt's own.
PROMPT_IDS: Final = "raybolt.prompt_ids"
"""int32[num_prompt_tokens]: what the engine was given, generation prompt included."""
RESPONSE_IDS: Final = "raybolt.response_ids"
"""int32[num_response_tokens]: what the engine sampled, end-of-turn token included."""
LOGPROBS: Final = "raybolt.logprobs"
"""float32[num_response_tokens]: log-probability of each sampled token under the sampling distribution."""
WEIGHTS_VERSION: Final = "raybolt.weights_version"
REWARD: Final = "raybolt.reward"
CALL_ID: Final = "raybolt.call_id"
KIND: Final = "raybolt.kind"
"""What an emitted span is, e.g. ``"emit"`` or ``"reward"``; absent on spans of calls and tools."""
ERROR_ORIGIN: Final = "raybolt.error.origin"
"""One of agent, policy, reward, limit, engine, raybolt."""
ERROR_TYPE: Final = "raybolt.error.type"
PARSE_ERROR: Final = "raybolt.parse_error"
TEMPERATURE: Final = "raybolt.temperature"
DRIFT: Final = "raybolt.drift"
POLICY: Final = "raybolt.policy"
"""Id of the policy that answered a call; absent where one policy answers all roles."""
TRAINABLE: Final = "raybolt.trainable"
"""False on a call that nothing is learned from; absent on all others."""
HANDOFF_SOURCE: Final = "raybolt.handoff.source"
"""The role that hands over."""
HANDOFF_TARGET: Final = "raybolt.handoff.target"
"""The role that takes over."""
