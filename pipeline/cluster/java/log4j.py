"""The log configuration of the Java processes: one file each, rotated by size, no console output."""

LOG_MB, LOG_FILES = 10, 4
_LAYOUT = "%d{yyyy-MM-dd'T'HH:mm:ss.SSSXXX}{UTC} %-5p %c{1} [%t] %m%n%throwable"


def render_log4j2() -> str:
    """The content of a log4j2.xml that logs to the file in the system property `log.file`."""
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<Configuration status="WARN">
  <Appenders>
    <RollingFile name="file" fileName="${{sys:log.file}}" filePattern="${{sys:log.file}}.%i">
      <PatternLayout pattern="{_LAYOUT}"/>
      <SizeBasedTriggeringPolicy size="{LOG_MB} MB"/>
      <DefaultRolloverStrategy max="{LOG_FILES}"/>
    </RollingFile>
  </Appenders>
  <Loggers>
    <Root level="INFO">
      <AppenderRef ref="file"/>
    </Root>
  </Loggers>
</Configuration>
"""
