"""`python convert.py URL`: connects the SDKs to the service, and prints what each sends to its model for each tool.

Runs in an environment with the packages of requirements.txt.
"""

import asyncio
import json
import sys

from agents import Agent, RunContextWrapper
from agents.mcp import MCPServerStreamableHttp, MCPUtil
from google.genai import _mcp_utils
from langchain_core.utils.function_calling import convert_to_openai_tool
from langchain_mcp_adapters.client import MultiServerMCPClient
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client

URL = sys.argv[1]


async def google_genai():
    async with streamable_http_client(URL) as (read, write, *_), ClientSession(read, write) as session:
        await session.initialize()
        tools = (await session.list_tools()).tools
    declarations = [tool.function_declarations[0] for tool in _mcp_utils.mcp_to_gemini_tools(tools)]
    return [[tool.name, tool.parameters.model_dump(mode="json", exclude_none=True)] for tool in declarations]


async def openai_agents():
    async with MCPServerStreamableHttp({"url": URL}) as server:
        context = RunContextWrapper(None)
        tools = await MCPUtil.get_all_function_tools([server], True, context, Agent(name="test"))
    return [[tool.name, tool.params_json_schema, tool.strict_json_schema] for tool in tools]


async def langchain():
    client = MultiServerMCPClient({"kafscale": {"transport": "streamable_http", "url": URL}})
    converted = [convert_to_openai_tool(tool, strict=True)["function"] for tool in await client.get_tools()]
    return [[tool["name"], tool["parameters"], tool["strict"]] for tool in converted]


async def main():
    results = {
        "google-genai": await google_genai(),
        "openai-agents": await openai_agents(),
        "langchain": await langchain(),
    }
    json.dump(results, sys.stdout)


asyncio.run(main())
